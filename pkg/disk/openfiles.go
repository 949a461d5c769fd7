//go:build linux

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const (
	// maxDescriptors bounds what one container can make a scan cost.
	maxDescriptors = 100_000
	// deletedMark is what the kernel adds to the name of a deleted file
	// (proc_pid_fd(5)). A file may be called so: the count of links decides.
	deletedMark = " (deleted)"
	// statPatience is how long a file's stat may take: the inode of an open file
	// is in memory.
	statPatience = 3 * time.Second
)

var errDescriptors = fmt.Errorf("more than %d open files", maxDescriptors)

// OpenFileScanner finds deleted files through /proc/PID/fd of every process
// that is in a container's cgroup or below it. Nothing is opened but folders
// of proc: the name of each descriptor is read, and only of those that are
// deleted, and on a file system that is watched (onDisk), the stat is taken,
// through the descriptor. So a FIFO, a device or a network that hangs is not
// touched; and where a stat hangs all the same, that container has no figure
// and the others have theirs. A process that ends in between is normal.
//
// It counts regular files without a name (no link is left), on the file
// systems that the container's own places are on and in its overlay, each
// inode once however many hold it: the first process by number has it. Files in
// memory (memfd, tmpfs) and on volumes that outlive the container are not
// counted.
//
// Not seen: a file that is only mapped and no longer open, and the descriptors
// of a thread that has a table of its own.
//
// The cost is about 15 µs a process and 1 µs a descriptor. It needs
// CAP_SYS_PTRACE to look at the processes of others (proc_pid_fd(5)).
type OpenFileScanner struct {
	proc     string
	watchdog *watchdog
}

// NewOpenFileScanner makes one that reads proc, the host's, wherever it is
// mounted: cgroups are told by their last name, so any cgroup namespace will do.
func NewOpenFileScanner(proc string) *OpenFileScanner {
	return &OpenFileScanner{proc: proc, watchdog: newWatchdog(statPatience)}
}

// Method implements OpenFilesMeter.
func (*OpenFileScanner) Method() string { return "open-files" }

// Scan implements OpenFilesMeter.
func (o *OpenFileScanner) Scan(ctx context.Context, holders []Holder) ([]OpenFiles, error) {
	proc, err := unix.Open(o.proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", o.proc, err)
	}
	defer func() { _ = unix.Close(proc) }()
	s := &openScan{
		ctx: ctx, proc: o.proc, watchdog: o.watchdog, holders: holders, cgroups: cgroupNames(holders),
		found: make([]OpenFiles, len(holders)), files: make([]top, len(holders)), count: make([]int, len(holders)),
		seen: make(map[inode]bool), mounts: make(map[int]mount), namespaces: make(map[string]bool),
		link: make([]byte, unix.PathMax+len(deletedMark)), text: make([]byte, 16<<10),
	}
	for i := range s.files {
		s.files[i].max = evidenceKept
	}
	var pids []string
	err = entries(proc, make([]byte, 32<<10), func(name string) error {
		if digits(name) {
			pids = append(pids, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", o.proc, err)
	}
	buf := make([]byte, 32<<10)
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.process(proc, pid, buf)
	}
	for i := range s.found {
		s.found[i].Files = s.files[i].items
	}
	return s.found, nil
}

type inode struct{ dev, ino uint64 }

// openScan is one scan's state.
type openScan struct {
	ctx        context.Context //nolint:containedctx // of the scan, which this is
	proc       string
	watchdog   *watchdog
	holders    []Holder
	cgroups    map[string][]int // holders by the last name of their cgroup
	found      []OpenFiles
	files      []top
	count      []int // descriptors looked at
	seen       map[inode]bool
	mounts     map[int]mount   // by their numbers
	namespaces map[string]bool // mount namespaces whose mounts are known
	link       []byte
	text       []byte
}

// process looks at one process, if it is a container's.
func (s *openScan) process(proc int, pid string, buf []byte) {
	h := s.owner(proc, pid)
	if h < 0 || s.found[h].Err != nil {
		return
	}
	dir, err := unix.Openat(proc, pid+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer func() { _ = unix.Close(dir) }()
		err = entries(dir, buf, func(name string) error {
			if !digits(name) {
				return nil
			}
			if s.count[h]++; s.count[h] > maxDescriptors {
				return errDescriptors
			}
			return s.descriptor(h, dir, pid, name)
		})
	}
	if err != nil && !ended(err) {
		s.found[h].Err = fmt.Errorf("cannot look at the open files of process %s: %w", pid, err)
	}
}

// ended tells whether a process or its descriptor is no longer there.
func ended(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESTALE)
}

// descriptor counts what a descriptor holds, if that is a deleted file.
func (s *openScan) descriptor(h, dir int, pid, name string) error {
	n, err := unix.Readlinkat(dir, name, s.link)
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
		n = 0 // deeper than a path may be: only the stat can tell
	case err != nil:
		return gone(err)
	case n < len(s.link) && !bytes.HasSuffix(s.link[:n], []byte(deletedMark)):
		return nil
	}
	m, ok := s.onDisk(h, pid, name)
	if !ok {
		return nil
	}
	st, err := s.stat(h, pid, name, m)
	if err != nil {
		return gone(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 || s.seen[inode{st.Dev, st.Ino}] {
		return nil
	}
	device := uint64(layerDevice)
	if slices.Contains(s.holders[h].Devices, st.Dev) {
		device = st.Dev
	} else if m.kind != "overlay" {
		return nil
	}
	s.seen[inode{st.Dev, st.Ino}] = true
	u := Usage{Bytes: st.Blocks * 512, Inodes: 1}
	if s.found[h].Held == nil {
		s.found[h].Held = make(map[uint64]Usage)
	}
	s.found[h].Held[device] = s.found[h].Held[device].plus(u)
	if u.Bytes > 0 && n > 0 && s.files[h].wants(u.Bytes) {
		s.files[h].add(Item{Path: string(s.link[:n]), Bytes: u.Bytes})
	}
	return nil
}

func gone(err error) error {
	if ended(err) {
		return nil
	}
	return err
}

// owner is the holder whose cgroup, in any hierarchy, a process is in or
// below; -1 when there is none.
func (s *openScan) owner(proc int, pid string) int {
	fd, err := unix.Openat(proc, pid+"/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer func() { _ = unix.Close(fd) }()
	n := 0
	for n < len(s.text) {
		m, err := unix.Read(fd, s.text[n:])
		if err != nil || m <= 0 {
			break
		}
		n += m
	}
	return s.ownerOf(s.text[:n])
}

// ownerOf reads proc_pid_cgroup(5): id:controllers:path, a line for each
// hierarchy. The outermost name decides: those below it a container may choose.
func (s *openScan) ownerOf(text []byte) int {
	for line := range bytes.Lines(text) {
		at := bytes.IndexByte(line, '/')
		if at < 0 {
			continue
		}
		whole := bytes.TrimSuffix(line[at:], []byte("\n"))
		for name := range bytes.SplitSeq(whole, []byte("/")) {
			all := s.cgroups[string(name)]
			for _, h := range all {
				if len(all) == 1 || strings.HasPrefix(string(whole)+"/", s.holders[h].Container.Cgroup+"/") {
					return h
				}
			}
			if len(all) > 0 {
				break
			}
		}
	}
	return -1
}

func cgroupNames(holders []Holder) map[string][]int {
	out := make(map[string][]int, len(holders))
	for i, h := range holders {
		if name := cgroupName(h.Container); name != "" {
			out[name] = append(out[name], i)
		}
	}
	return out
}

// cgroupName is the name of a container's own cgroup: the last of its path, or
// under systemd, where the spec has slice:prefix:name, the name of its scope
// (runc, libcontainer/cgroups/systemd, getUnitName).
func cgroupName(c runtime.Container) string {
	parts := strings.Split(c.Cgroup, ":")
	if len(parts) == 3 {
		switch {
		case strings.HasSuffix(parts[2], ".slice"):
			return parts[2]
		case parts[1] == "":
			return parts[2] + ".scope"
		}
		return parts[1] + "-" + parts[2] + ".scope"
	}
	if name := path.Base(c.Cgroup); name != "." && name != "/" && name != ".." {
		return name
	}
	return ""
}

// entries hands the names in a folder to visit, as they stand there.
func entries(dir int, buf []byte, visit func(name string) error) error {
	for {
		n, err := getdents(dir, buf)
		if err != nil || n == 0 {
			return err
		}
		for rest := buf[:n]; len(rest) > 0; {
			var d dirent
			if d, rest, err = nextDirent(rest); err != nil {
				return err
			}
			if err := visit(string(d.name[:len(d.name)-1])); err != nil {
				return err
			}
		}
	}
}

func digits(name string) bool {
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}
