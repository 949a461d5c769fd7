package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ChangedError says that an entry's tree is not what was put there.
type ChangedError struct{ Path, What string }

func (e *ChangedError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.What) }

func changed(path, format string, args ...any) error {
	return &ChangedError{Path: path, What: fmt.Sprintf(format, args...)}
}

// look compares the names, types, modes, owners and sizes below root with
// files, and calls each with what lstat said.
func look(root string, files []File, each func(f File, st *syscall.Stat_t) error) error {
	known := make(map[string]File, len(files))
	for _, f := range files {
		known[f.Path] = f
	}
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		f, ok := known[path[len(root)+1:]]
		if !ok {
			return changed(path, "was not there before")
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := same(path, f, info); err != nil {
			return err
		}
		seen++
		return each(f, info.Sys().(*syscall.Stat_t))
	})
	if err == nil && seen != len(files) {
		return changed(root, "%d of %d files are missing", len(files)-seen, len(files))
	}
	return err
}

// same compares what lstat tells of a file with what it should be.
func same(path string, f File, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case typeOf(mode) != f.Type:
		return changed(path, "is a %s, not a %s", mode.Type(), f.Type)
	case f.Type == Link:
		if target, err := os.Readlink(path); err != nil || target != f.Target {
			return changed(path, "points to %q, not to %q", target, f.Target)
		}
	case mode&^fs.ModeDir != f.Mode:
		return changed(path, "has mode %v, not %v", mode&^fs.ModeDir, f.Mode)
	case f.Type == Regular && info.Size() != f.Size:
		return changed(path, "has %d bytes, not %d", info.Size(), f.Size)
	}
	return nil
}

func typeOf(mode fs.FileMode) Type {
	switch mode.Type() {
	case 0:
		return Regular
	case fs.ModeDir:
		return Folder
	case fs.ModeSymlink:
		return Link
	default:
		return Type(mode.Type().String())
	}
}

// fingerprint changes whenever somebody wrote to a file of the tree, or
// replaced it: ctime cannot be set back by a process.
func fingerprint(root string, files []File) (string, error) {
	h := sha256.New()
	err := look(root, files, func(f File, st *syscall.Stat_t) error {
		_, err := fmt.Fprintf(h, "%q %d %d %d %d %d.%d\n", f.Path, st.Ino, st.Uid, st.Gid, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

func verifiedRecord(bootID, print string) string {
	return fmt.Sprintf("boot %s files %s\n", bytesTrim(bootID), print)
}

// bytesTrim takes the line's end off, as /proc gives it.
func bytesTrim(s string) string {
	for len(s) > 0 && s[len(s)-1] == '\n' {
		s = s[:len(s)-1]
	}
	return s
}

// check reads every file of a tree and compares its digest.
func check(root string, files []File) error {
	return look(root, files, func(f File, _ *syscall.Stat_t) error {
		if f.Type != Regular {
			return nil
		}
		path := filepath.Join(root, f.Path)
		file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		h := sha256.New()
		if _, err := io.Copy(h, file); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != f.SHA256 {
			return changed(path, "has sha256 %s, not %s", got, f.SHA256)
		}
		return nil
	})
}
