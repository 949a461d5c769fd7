package unpack

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Limits bound what may come out. Zero: no bound.
type Limits struct {
	Bytes int64 // unpacked, all files together
	Files int   // files, folders and links
	// Ratio bounds unpacked bytes by packed ones, once RatioFrom bytes are out.
	Ratio     int64
	RatioFrom int64
	// Space is how many bytes the disk has for it. More is the disk's fault,
	// not the content's.
	Space int64
}

// writeback is how many bytes of a file are given to the disk at a time while
// more are coming, so that the sync at the end is short.
const writeback = 4 << 20

// Tree is a folder that is being filled, by several at once.
type Tree struct {
	root   *os.File
	limits Limits

	mu    sync.Mutex
	bytes int64
	files map[string]store.File
}

// NewTree fills the empty folder dir.
func NewTree(dir string, l Limits) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	return &Tree{root: os.NewFile(uintptr(fd), dir), limits: l, files: map[string]store.File{}}, nil
}

// Close gives the folder's descriptor back.
func (t *Tree) Close() error { return t.root.Close() }

// Files lists what was made, by path.
func (t *Tree) Files() []store.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]store.File, 0, len(t.files))
	for _, f := range t.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b store.File) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// Bytes is how many bytes were written so far.
func (t *Tree) Bytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// claim takes a name, once. True: it was a folder already, and may be again.
func (t *Tree) claim(f store.File) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.files[f.Path]; ok {
		if old.Type == store.Folder && f.Type == store.Folder {
			return true, nil
		}
		return false, refuse("%q twice: two entries, or two artifacts, claim this name", f.Path)
	}
	if t.limits.Files > 0 && len(t.files) >= t.limits.Files {
		return false, refuse("more than %d files", t.limits.Files)
	}
	t.files[f.Path] = f
	return false, nil
}

// spend counts n bytes that are to be written, of an artifact of which packed
// bytes were read and out bytes came out.
func (t *Tree) spend(n, out, packed int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += n
	switch l := t.limits; {
	case l.Bytes > 0 && t.bytes > l.Bytes:
		return refuse("more than %d bytes unpacked", l.Bytes)
	case l.Space > 0 && t.bytes > l.Space:
		return &WriteError{Err: fmt.Errorf("it takes more than the %d bytes that may be filled: %w", l.Space, unix.ENOSPC)}
	case l.Ratio > 0 && out > l.RatioFrom && packed > 0 && out > packed*l.Ratio:
		return refuse("%d bytes out of %d: more than %d to one, as a bomb has it", out, packed, l.Ratio)
	}
	return nil
}

// open opens a name below the root, through no link.
func (t *Tree) open(name string, flags int, mode fs.FileMode) (int, error) {
	for {
		fd, err := unix.Openat2(int(t.root.Fd()), name, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
			Mode:    uint64(mode),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN): // a rename elsewhere raced the look
			continue
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EXDEV):
			return -1, refuse("%q, whose way leads through something that is not a folder", name)
		case errors.Is(err, unix.EEXIST):
			return -1, refuse("%q twice: two entries, or two artifacts, claim this name", name)
		case err != nil:
			return -1, fmt.Errorf("cannot make %s: %w", name, err)
		}
		return fd, nil
	}
}

// inFolderOf calls do with the descriptor of the folder that holds name, which
// is made when it is not there.
func (t *Tree) inFolderOf(name string, do func(fd int, base string) error) error {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if err := t.Folder(dir); err != nil {
		return err
	}
	fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd, base)
}

// Folder makes a folder and those above it. One that is there already is fine.
func (t *Tree) Folder(name string) error {
	if name == "." {
		return nil
	}
	was, err := t.claim(store.File{Path: name, Type: store.Folder, Mode: 0o755})
	if err != nil || was {
		return err
	}
	return t.inFolderOf(name, func(fd int, base string) error {
		if err := unix.Mkdirat(fd, base, 0o755); err != nil {
			return fmt.Errorf("cannot make folder %s: %w", name, err)
		}
		return nil
	})
}

// Symlink makes a symbolic link, if it cannot lead out.
func (t *Tree) Symlink(name, target string) error {
	if err := checkTarget(name, target); err != nil {
		return err
	}
	if _, err := t.claim(store.File{Path: name, Type: store.Link, Target: target}); err != nil {
		return err
	}
	return t.inFolderOf(name, func(fd int, base string) error {
		if err := unix.Symlinkat(target, fd, base); err != nil {
			return fmt.Errorf("cannot make link %s: %w", name, err)
		}
		return nil
	})
}

// Hardlink makes a second name for a file that was made before.
func (t *Tree) Hardlink(name, target string) error {
	t.mu.Lock()
	f, ok := t.files[target]
	t.mu.Unlock()
	if !ok || f.Type != store.Regular || f.SHA256 == "" {
		return refuse("the hard link %q to %q, which is no file before it", name, target)
	}
	f.Path = name
	if _, err := t.claim(f); err != nil {
		return err
	}
	return t.inFolderOf(target, func(from int, old string) error {
		return t.inFolderOf(name, func(to int, base string) error {
			if err := unix.Linkat(from, old, to, base, 0); err != nil {
				return fmt.Errorf("cannot make hard link %s: %w", name, err)
			}
			return nil
		})
	})
}

// File makes a file of what r holds. Spend is asked before each write.
func (t *Tree) File(name string, mode fs.FileMode, r io.Reader, spend func(n int64) error) error {
	// Nobody but root writes later; whoever may read at all may be any user.
	mode = mode.Perm()&^0o022 | 0o444
	f := store.File{Path: name, Type: store.Regular, Mode: mode}
	if _, err := t.claim(f); err != nil {
		return err
	}
	dir, _ := path.Split(name)
	if err := t.Folder(path.Clean(dir)); err != nil {
		return err
	}
	fd, err := t.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	f.Size, f.SHA256, err = fill(file, r, spend)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files[name] = f
	return nil
}

// fill writes what r holds, and returns its length and SHA-256.
func fill(file *os.File, r io.Reader, spend func(n int64) error) (int64, string, error) {
	h := sha256.New()
	buf := make([]byte, 128<<10)
	var size, given int64
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := spend(int64(n)); err != nil {
				return 0, "", err
			}
			if _, err := file.Write(buf[:n]); err != nil {
				return 0, "", &WriteError{Err: err}
			}
			h.Write(buf[:n])
			size += int64(n)
		}
		if size-given >= writeback {
			_ = unix.SyncFileRange(int(file.Fd()), given, size-given, unix.SYNC_FILE_RANGE_WRITE) // only a start
			given = size
		}
		if errors.Is(err, io.EOF) {
			return size, hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return 0, "", err
		}
	}
}

// WriteError says that this machine could not take the bytes, whatever they
// are: its disk is full, or broken.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return fmt.Sprintf("cannot write: %v", e.Err) }
func (e *WriteError) Unwrap() error { return e.Err }
