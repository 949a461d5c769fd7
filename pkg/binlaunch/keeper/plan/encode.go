package plan

import (
	"encoding/binary"
	"errors"
)

// Part is what is sent to a keeper at once: *Prelude, *Plan or *Handed.
type Part interface{ walk(c *codec) }

// Encode is what Decode reads.
func Encode(p Part) []byte {
	c := &codec{}
	p.walk(c)
	return c.buf
}

// Decode reads what Encode wrote.
func Decode(b []byte, p Part) error {
	c := &codec{buf: b, reading: true}
	p.walk(c)
	if c.bad || len(c.buf) != 0 {
		return errors.New("cannot read the plan: it is not one of this version")
	}
	return nil
}

// codec writes or reads, so that the order of the fields is told once.
type codec struct {
	buf     []byte
	reading bool
	bad     bool
}

func (p *Prelude) walk(c *codec) {
	if c.version() {
		integer(c, &p.Unshare)
		c.steps(&p.Steps)
	}
}

func (p *Plan) walk(c *codec) {
	if !c.version() {
		return
	}
	list(c, &p.Argv, (*codec).text)
	list(c, &p.Env, (*codec).text)
	c.text(&p.Cwd)
	c.text(&p.Hostname)
	for _, b := range []*bool{&p.OwnPids, &p.OwnUser, &p.NoNewPrivs, &p.ReadOnlyProc, &p.CgroupIsFD} {
		c.flag(b)
	}
	for _, n := range []*uint32{&p.UID, &p.GID, &p.InnerUID, &p.InnerGID, &p.DiskEverySeconds} {
		integer(c, n)
	}
	integer(c, &p.Caps)
	raw := string(p.Seccomp)
	c.text(&raw)
	p.Seccomp = []byte(raw)
	integer(c, &p.Landlock.HandledFS)
	integer(c, &p.Landlock.Scoped)
	list(c, &p.Landlock.Rules, func(c *codec, r *Rule) { c.text(&r.Path); integer(c, &r.Access) })
	list(c, &p.Rlimits, func(c *codec, r *Rlimit) {
		integer(c, &r.Resource)
		integer(c, &r.Soft)
		integer(c, &r.Hard)
		c.flag(&r.MayRefuse)
	})
	c.steps(&p.Steps)
	for _, n := range []*int{&p.Listen, &p.OutputFiles} {
		integer(c, n)
	}
	integer(c, &p.OutputMax)
	integer(c, &p.Disk)
}

func (h *Handed) walk(c *codec) {
	if c.version() {
		integer(c, &h.Cgroups)
		c.flag(&h.OOMEvents)
		c.flag(&h.CPUUsage)
	}
}

func (c *codec) version() bool {
	version := uint32(Version)
	integer(c, &version)
	c.bad = c.bad || version != Version
	return !c.bad
}

func (c *codec) steps(all *[]Step) {
	list(c, all, func(c *codec, s *Step) {
		integer(c, &s.Op)
		for _, t := range []*string{&s.Source, &s.Target, &s.Type, &s.Data} {
			c.text(t)
		}
		integer(c, &s.Flags)
		integer(c, &s.Mode)
		integer(c, &s.Dev)
		c.flag(&s.Optional)
	})
}

func integer[T ~int | ~int64 | ~uint32 | ~uint64 | ~uintptr](c *codec, n *T) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, uint64(*n))
		return
	}
	v, size := binary.Uvarint(c.buf)
	if size <= 0 {
		c.bad, c.buf = true, nil
		return
	}
	*n, c.buf = T(v), c.buf[size:]
}

func (c *codec) flag(b *bool) {
	n := uint32(0)
	if *b {
		n = 1
	}
	integer(c, &n)
	*b = n == 1
}

func (c *codec) text(s *string) {
	n := len(*s)
	integer(c, &n)
	switch {
	case !c.reading:
		c.buf = append(c.buf, *s...)
	case n < 0 || n > len(c.buf):
		c.bad, c.buf = true, nil
	default:
		*s, c.buf = string(c.buf[:n]), c.buf[n:]
	}
}

func list[T any](c *codec, all *[]T, one func(*codec, *T)) {
	n := len(*all)
	integer(c, &n)
	if c.reading {
		if n < 0 || n > len(c.buf) { // each takes a byte at least
			c.bad, c.buf = true, nil
			return
		}
		*all = make([]T, n)
	}
	for i := range *all {
		one(c, &(*all)[i])
	}
}
