package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// output reads rotated files as one stream. Files are known by their inode,
// since their names move on while they are read.
type output struct {
	folder string
	done   <-chan struct{}
	events *os.File // inotify, nil: does not follow
	file   *os.File // nil: not open yet
	closed chan struct{}
	once   sync.Once
}

func openOutput(folder string, follow bool, done <-chan struct{}) (io.ReadCloser, error) {
	o := &output{folder: folder, done: done, closed: make(chan struct{})}
	if follow {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("cannot follow the output: %w", err)
		}
		o.events = os.NewFile(uintptr(fd), "inotify")
		if _, err := unix.InotifyAddWatch(fd, folder, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot follow the output in %s: %w", folder, err), o.events.Close())
		}
		go func() { // ends with Close
			select {
			case <-done:
				_ = o.events.SetReadDeadline(time.Now()) // wakes a reader
			case <-o.closed:
			}
		}()
	}
	file, err := o.oldest()
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.file = file
	return o, nil
}

func (o *output) Close() error {
	var errs error
	o.once.Do(func() {
		close(o.closed)
		if o.events != nil {
			errs = o.events.Close()
		}
		if o.file != nil {
			errs = errors.Join(errs, o.file.Close())
		}
	})
	return errs
}

func (o *output) Read(p []byte) (int, error) {
	for {
		ended := o.hasEnded()
		if n, err := o.readFile(p); n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		next, err := o.next()
		if err != nil {
			return 0, err
		}
		if next != nil {
			// The file was done with before it was renamed: what came between
			// the last read and that is all there is.
			n, err := o.readFile(p)
			if n > 0 {
				return n, errors.Join(ignoreEOF(err), next.Close())
			}
			if o.file != nil {
				_ = o.file.Close()
			}
			o.file = next
			continue
		}
		if o.events == nil || ended {
			return 0, io.EOF
		}
		if err := o.sleep(); err != nil {
			return 0, err
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (o *output) readFile(p []byte) (int, error) {
	if o.file == nil {
		return 0, io.EOF
	}
	return o.file.Read(p)
}

func (o *output) hasEnded() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

func (o *output) sleep() error {
	var b [4096]byte
	_, err := o.events.Read(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func (o *output) name(n int) string {
	if n == 0 {
		return filepath.Join(o.folder, plan.OutputName)
	}
	return filepath.Join(o.folder, plan.OutputName+"."+strconv.Itoa(n))
}

// oldest opens the file that was begun first; nil if there is none.
func (o *output) oldest() (*os.File, error) {
	n := 0
	for ; ; n++ {
		if _, err := os.Stat(o.name(n + 1)); err != nil {
			break
		}
	}
	return o.open(n)
}

func (o *output) open(n int) (*os.File, error) {
	f, err := os.Open(o.name(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the output: %w", err)
	}
	return f, nil
}

// next opens the file after the one that is read, nil if that is the last one.
func (o *output) next() (*os.File, error) {
	if o.file == nil {
		return o.oldest()
	}
	own, err := o.file.Stat()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		st, err := os.Stat(o.name(n))
		if err == nil && os.SameFile(own, st) {
			if n == 0 {
				return nil, nil
			}
			return o.open(n - 1)
		}
		if err != nil && n > 0 {
			return o.oldest() // it was rotated away while it was read
		}
	}
}
