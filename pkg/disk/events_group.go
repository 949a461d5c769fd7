//go:build linux

package disk

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// eventsWanted is what is asked of a whole file system. Each write
	// (MODIFY) is not: that would cost every writer on it a fifth and more.
	// CLOSE_WRITE tells of what raises no MODIFY on the file under an overlay,
	// once it is over: splice, sendfile, mmap.
	eventsWanted = unix.FAN_CLOSE_WRITE | unix.FAN_CREATE | unix.FAN_DELETE |
		unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO | unix.FAN_ONDIR
	// writesWanted is what is asked of a folder whose files are quiet.
	writesWanted = unix.FAN_MODIFY | unix.FAN_EVENT_ON_CHILD
	// handleTries is how often a folder is tried to be opened by its handle
	// while others are moved: 20 ms in all.
	handleTries = 200
)

// fanGroup is a fanotify group: one queue of events for all file systems
// marked. Before Linux 6.5 the writes that go through an overlay raise none on
// the file system under it, see Probe.
type fanGroup struct {
	fd   int
	file *os.File // the same, known to Go's poller
	buf  []byte
}

func newFanGroup() (*fanGroup, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|
		unix.FAN_REPORT_DFID_NAME|unix.FAN_UNLIMITED_MARKS, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return nil, fmt.Errorf("cannot make a fanotify group: %w", err)
	}
	return &fanGroup{fd: fd, file: os.NewFile(uintptr(fd), "fanotify"), buf: make([]byte, 256<<10)}, nil
}

func (g *fanGroup) close() error { return g.file.Close() }

// wait returns when there is an event in the queue, or with an error after
// interrupt or close.
func (g *fanGroup) wait() error {
	c, err := g.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot wait for fanotify events: %w", err)
	}
	if err := c.Read(func(uintptr) bool { return g.waiting() > 0 }); err != nil {
		return fmt.Errorf("cannot wait for fanotify events: %w", err)
	}
	return nil
}

// interrupt ends wait, now and from now on.
func (g *fanGroup) interrupt() { _ = g.file.SetReadDeadline(time.Unix(1, 0)) }

// follow marks the file system that the open folder is on.
func (g *fanGroup) follow(folder int) error {
	err := unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, eventsWanted, folder, "")
	if err != nil {
		return fmt.Errorf("cannot follow the file system's events: %w", err)
	}
	return nil
}

// listen asks for the writes to the files of an open folder. The mark keeps the
// folder's inode in the kernel's memory, about a KiB, unless it is evictable:
// then it may be lost when no file in the folder is open.
func (g *fanGroup) listen(folder int, evictable bool) error {
	flags := uint(unix.FAN_MARK_ADD)
	if evictable {
		flags |= unix.FAN_MARK_EVICTABLE
	}
	err := unix.FanotifyMark(g.fd, flags, writesWanted, folder, "")
	if errors.Is(err, unix.EEXIST) { // it has one that is not evictable
		err = unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD, writesWanted, folder, "")
	}
	if err != nil {
		return fmt.Errorf("cannot listen to writes in a folder: %w", err)
	}
	return nil
}

// deafen undoes listen. A mark that is not there is what is wanted.
func (g *fanGroup) deafen(folder int) {
	_ = unix.FanotifyMark(g.fd, unix.FAN_MARK_REMOVE, writesWanted, folder, "")
}

// waiting is how many events are in the queue. (The kernel tells their bytes,
// without names and handles.)
func (g *fanGroup) waiting() int {
	n, err := unix.IoctlGetInt(g.fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return 0
	}
	return n / eventMetadata
}

// read hands on all events that are in the queue.
func (g *fanGroup) read(each func(event)) error {
	for {
		n, err := unix.Read(g.fd, g.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read fanotify events: %w", err)
		case n == 0:
			return nil
		}
		for rest := g.buf[:n]; len(rest) > 0; {
			var e event
			if e, rest, err = nextEvent(rest); err != nil {
				return err
			}
			each(e)
		}
		if n < len(g.buf)/2 { // what comes meanwhile is for the next time
			return nil
		}
	}
}

// fileHandle is the kernel's struct file_handle (open_by_handle_at(2)).
type fileHandle struct {
	bytes uint32
	kind  int32
	data  [maxHandle]byte
}

// handleOf asks for the handle of an entry, whose name ends with a NUL; of the
// open folder itself for an empty name.
func handleOf(folder int, name []byte, h *fileHandle) error {
	var mount int32
	h.bytes = uint32(len(h.data))
	flags := 0
	if name[0] == 0 {
		flags = unix.AT_EMPTY_PATH
	}
	_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(folder), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&mount)), uintptr(flags), 0)
	if errno != 0 {
		return os.NewSyscallError("name_to_handle_at", errno)
	}
	return nil
}

// key names a folder for its whole life, across all file systems; a folder
// that gets the same inode later has another one.
func (h *fileHandle) key(fsid [8]byte) string {
	raw := unsafe.Slice((*byte)(unsafe.Pointer(h)), handleHeader+int(h.bytes))
	return string(fsid[:]) + string(raw)
}

// openKey opens a folder by its key, through any open folder of the same mount.
func openKey(mount int, key string, h *fileHandle) (int, error) {
	raw := unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Sizeof(*h))
	copy(raw, key[len(fsid{}):])
	for try := 0; ; try++ {
		fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(mount), uintptr(unsafe.Pointer(h)),
			unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.ENOMEM && try < handleTries: // a folder on its way was just moved or removed
			_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(try) * 1000}, nil)
		case errno != unix.EINTR:
			return -1, os.NewSyscallError("open_by_handle_at", errno)
		}
	}
}

type fsid = [8]byte

func fsidOf(folder int) (fsid, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(folder, &st); err != nil {
		return fsid{}, fmt.Errorf("cannot ask file system: %w", err)
	}
	return *(*fsid)(unsafe.Pointer(&st.Fsid)), nil
}
