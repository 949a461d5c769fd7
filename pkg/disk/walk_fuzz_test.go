//go:build linux

package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// FuzzWalk makes a tree of what a container might do, and compares the walk
// with a simple count of every name. Then it lets all files grow, which are few
// and new and so are hot, and compares a probe; and then it does half of it once
// more, so that names come, go and are others: whatever probes saw of that, the next walk tells
// what there is, and so does a fresh one.
func FuzzWalk(f *testing.F) {
	f.Add([]byte("\x00a\x02b\x30\x03c\x04d\x05e\x06f\x01\x02log\xff\x07"))
	f.Add([]byte("\x00\xff\xfe\x00\n\x00 \x02...\x10\x03..a\x01\x01\x01\x05x"))
	f.Add(bytes.Repeat([]byte("\x00d"), 80)) // deeper than openFolders
	f.Add(bytes.Repeat([]byte("\x02n\x00\x01\x00m\x03l"), 20))
	f.Add([]byte("\x00log\x02app\x02other\x01\x00cold\x02x\x01\x01\x00log2\x02app\x08old\x02app\x07\x08over\x03l"))
	walker := NewWalker("/")
	f.Fuzz(func(t *testing.T, script []byte) {
		root, err := os.MkdirTemp("/dev/shm", "walk")
		must(t, err)
		defer func() { must(t, os.RemoveAll(root)) }()
		act(root, script)
		target := Target{Layer: runtime.Layer{Upper: root}}
		agree := func(what string, measure func(context.Context, Target) (Look, error)) Look {
			look, err := measure(t.Context(), target)
			must(t, err)
			if want := count(t, root); look.Usage != want {
				t.Errorf("%s: usage %+v, a count says %+v", what, look.Usage, want)
			}
			return look
		}
		look := agree("walked", walker.Measure)
		agree("probed right after", walker.Probe)
		if appendToFiles(t, root) <= hotFiles {
			agree("probed after all files grew", walker.Probe)
		}
		act(root, script[len(script)/2:])
		if _, err := walker.Probe(t.Context(), target); err != nil {
			t.Errorf("probed after more was done: %v", err)
		}
		agree("walked again", walker.Measure)
		agree("probed right after that", walker.Probe)
		walker.Forget(root)
		if _, err := walker.Probe(t.Context(), target); !errors.Is(err, ErrLater) {
			t.Errorf("probed what was forgotten: %v", err)
		}
		agree("walked afresh", walker.Measure)
		walker.Forget(root)
		for _, it := range look.Files {
			if info, err := os.Lstat(filepath.Join(root, it.Path)); err == nil && !info.Mode().IsRegular() {
				t.Errorf("%q is told as a file", it.Path)
			}
		}
	})
}

// act does what the script says, one byte for what, one for how much, the name
// up to the next byte below 9. What cannot be done is not done.
func act(root string, script []byte) {
	dir, last := root, ""
	for ops := 0; len(script) > 1 && ops < 200; ops++ {
		what := script[0]
		script = script[1:]
		end := bytes.IndexFunc(script, func(r rune) bool { return r < 9 })
		if end < 0 {
			end = len(script)
		}
		name := string(bytes.ReplaceAll(script[:min(end, 255)], []byte("/"), []byte("_")))
		script = script[end:]
		if name == "." || name == ".." {
			name += "_"
		}
		path := filepath.Join(dir, name)
		switch {
		case what == 1 && dir != root:
			dir = filepath.Dir(dir)
		case name == "":
		case what == 0 && len(path) < 3500 && os.Mkdir(path, 0o755) == nil:
			dir = path
		case what == 2 && put(path, 100*len(name)):
			last = path
		case what == 3:
			_ = os.Link(last, path)
		case what == 4:
			_ = os.Symlink("/", path)
		case what == 5:
			_ = unix.Mkfifo(path, 0o600)
		case what == 6:
			_ = os.Truncate(last, int64(len(name))<<20)
		case what == 7:
			_ = os.Remove(last)
		case what == 8 && os.Rename(last, path) == nil:
			last = path
		}
	}
}

// appendToFiles lets each file with one name grow, and tells how many those are.
func appendToFiles(t *testing.T, root string) (n int) {
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Nlink > 1 {
			return err
		}
		n++
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(make([]byte, 5000))
		return errors.Join(err, f.Close())
	}))
	return n
}

// put writes a file; the name may be a link's, or a FIFO's that nobody reads.
func put(path string, n int) bool {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return false
	}
	_, err = f.Write(make([]byte, n))
	return f.Close() == nil && err == nil
}

func count(t *testing.T, root string) (u Usage) {
	seen := make(map[uint64]bool)
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || seen[st.Ino] {
			return err
		}
		seen[st.Ino] = true
		u.Bytes += st.Blocks * 512
		u.Inodes++
		return nil
	}))
	return u
}
