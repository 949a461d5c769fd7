package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// carryOut makes the machine, runs all in it and returns the exit code of the
// first run that failed, 0 if none did.
func (o options) carryOut(ctx context.Context, w io.Writer) (code int, err error) {
	dir, err := os.MkdirTemp("", "nodeagent-vm-")
	if err != nil {
		return 0, fmt.Errorf("cannot make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &report{w: w, start: time.Now()}
	m, runs, err := o.prepare(ctx, dir, r)
	if err != nil {
		return 0, err
	}
	r.say("booting %s under emulation", filepath.Base(m.kernel))
	r.since = time.Now()
	if err := m.run(ctx, r.take); err != nil {
		return 0, fmt.Errorf("%s%w", r.unfinished(), err)
	}
	if len(r.ended) != runs {
		return 0, fmt.Errorf("%d of %d runs ended", len(r.ended), runs)
	}
	return r.summary(), nil
}

// prepare fetches, builds and packs all that the machine is made of, into dir.
func (o options) prepare(ctx context.Context, dir string, r *report) (m machine, runs int, err error) {
	r.say("building what is run")
	subjects, err := o.build(ctx, dir)
	if err != nil {
		return m, 0, err
	}
	unpacked, err := fetch(ctx, o.lab, "linux-cloud")
	if err != nil {
		return m, 0, err
	}
	k, err := openKernel(unpacked)
	if err != nil {
		return m, 0, err
	}
	names := append(machineModules(), "overlay", "loop")
	m = machine{
		kernel: k.image, initramfs: filepath.Join(dir, "initramfs"), console: filepath.Join(dir, "console"),
		memory: int64(o.memory), cpus: o.cpus,
		patience: time.Duration(len(subjects)*len(o.disks)) * (o.timeout + 2*killAfter),
	}
	for n, d := range o.disks {
		names = append(names, d.fs.modules...)
		if d.size == 0 {
			continue
		}
		file, err := d.format(ctx, dir)
		if err != nil {
			return m, 0, err
		}
		m.images = append(m.images, image{file, serial(n)})
	}
	modules, err := k.order(append(names, o.modules...))
	if err != nil {
		return m, 0, err
	}
	return m, len(subjects) * len(o.disks), o.pack(ctx, m.initramfs, subjects, modules)
}

// fetch has the lab download a part, if its cache has none, and with the kernel
// install QEMU, if it is missing. The lab says on stderr what it does. The
// answer is the part's folder.
func fetch(ctx context.Context, lab, part string) (string, error) {
	cmd := exec.CommandContext(ctx, lab, "fetch", part)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cannot fetch %s with %s: %w", part, lab, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// report tells what happens while it does, and keeps what came of each run.
type report struct {
	w       io.Writer
	start   time.Time
	since   time.Time // of the boot, then of the run
	running string
	ended   []result
}

type result struct {
	name string
	code int
	how  string
	took time.Duration
}

func (r *report) say(format string, args ...any) {
	fmt.Fprintf(r.w, "[%5.1fs] vm: %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

// take takes a message of the guest.
func (r *report) take(m guest.Message) {
	switch m.Kind {
	case guest.Up:
		r.say("Linux %s is up after %.1f s", m.Text, time.Since(r.since).Seconds())
	case guest.Start:
		r.running, r.since = m.Text, time.Now()
		r.say("%s", m.Text)
	case guest.Output:
		_, _ = r.w.Write(m.Data)
	case guest.End:
		r.ended = append(r.ended, result{r.running, m.Code, m.Text, time.Since(r.since)})
		r.running = ""
	case guest.Failed, guest.Done:
	}
}

// unfinished names the run that a machine's failure interrupted.
func (r *report) unfinished() string {
	if r.running == "" {
		return ""
	}
	return "in " + r.running + ": "
}

// summary tells of all runs, and returns the code of the first that failed.
func (r *report) summary() int {
	code := 0
	for _, e := range r.ended {
		if code == 0 {
			code = e.code
		}
		r.say("%s", e)
	}
	return code
}

func (e result) String() string {
	what := "ok"
	if e.code != 0 {
		what = fmt.Sprintf("FAILED with exit code %d", e.code)
	}
	if e.how != "" {
		what += " (" + e.how + ")"
	}
	return fmt.Sprintf("%s: %s, %.1f s", e.name, what, e.took.Seconds())
}
