package disk

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mount is where a file system is attached.
type mount struct {
	point  string
	device uint64 // major:minor as unix.Mkdev packs them
	id     int
	kind   string // ext4, overlay, nfs4, fuse.sshfs
}

// mounts is the mount table of this process. Unlike stat it tells which file
// system a path is on without asking that file system, which may hang.
type mounts []mount

func readMounts(proc string) (mounts, error) {
	data, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot read mounts: %w", err)
	}
	return parseMounts(bytes.NewReader(data))
}

// parseMounts reads proc_pid_mountinfo(5):
// id parent major:minor root point options … - kind source options
func parseMounts(r io.Reader) (mounts, error) {
	var all mounts
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay mounts have lines of many KiB
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			return nil, fmt.Errorf("cannot read mounts: line %q has %d fields", lines.Text(), len(f))
		}
		device, err := parseDevice(f[2])
		if err != nil {
			return nil, fmt.Errorf("cannot read mounts: %w", err)
		}
		m := mount{point: unescapeMount(f[4]), device: device}
		if m.id, err = strconv.Atoi(f[0]); err != nil {
			return nil, fmt.Errorf("cannot read mounts: %w", err)
		}
		if i := slices.Index(f, "-"); i >= 0 && i+1 < len(f) {
			m.kind = strings.Clone(f[i+1]) // and not the whole line
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

func parseDevice(s string) (uint64, error) {
	major, minor, _ := strings.Cut(s, ":")
	a, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return 0, err
	}
	b, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return 0, err
	}
	return mkdev(uint32(a), uint32(b)), nil
}

// mkdev packs a device number as the C library does.
func mkdev(major, minor uint32) uint64 {
	a, b := uint64(major), uint64(minor)
	return (a&0xfff)<<8 | (a&^0xfff)<<32 | b&0xff | (b&^0xff)<<12
}

// unescapeMount undoes the kernel's \040 for space, tab, newline and backslash.
func unescapeMount(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// of is the mount that a path is on: the longest, the last of equal ones.
func (m mounts) of(path string) mount {
	best := mount{point: "/"}
	for _, c := range m {
		if below(path, c.point) && len(c.point) >= len(best.point) {
			best = c
		}
	}
	return best
}

// at is the mount of a path whose device a look has told. A link on the way
// to the path may have led to another mount than the path's own; a btrfs
// subvolume has a device that no mount has.
func (m mounts) at(path string, device uint64) mount {
	own := m.of(path)
	if own.device == device || device == 0 {
		return own
	}
	var best mount
	for _, c := range m {
		if c.device == device && (best.point == "" || len(c.point) < len(best.point)) {
			best = c
		}
	}
	if best.point == "" {
		return own
	}
	return best
}

func below(path, folder string) bool {
	if folder == "/" {
		return true
	}
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/')
}
