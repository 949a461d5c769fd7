package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// archive writes an initramfs: a cpio archive of the format newc, as in the
// kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Paths
// below /bin, /sbin and /lib are put where a merged /usr has them.
type archive struct {
	w   *bufio.Writer
	ino int
	has map[string]bool
}

// usrMerged are the links of the root of a Debian machine.
func usrMerged() []string { return []string{"bin", "sbin", "lib", "lib64"} }

func newArchive(w io.Writer) (*archive, error) {
	a := &archive{w: bufio.NewWriter(w), has: map[string]bool{"": true}}
	for _, name := range usrMerged() {
		if err := a.folder("usr/" + name); err != nil {
			return nil, err
		}
		if err := a.entry(name, unix.S_IFLNK|0o777, strings.NewReader("usr/"+name), int64(len("usr/"+name))); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// text adds a file with the given content.
func (a *archive) text(name, content string) error {
	return a.add(name, 0o644, strings.NewReader(content), int64(len(content)))
}

// file adds a copy of a file of the host; adding it again does nothing.
func (a *archive) file(name, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("cannot put %s into the initramfs: %w", source, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot put %s into the initramfs: %w", source, err)
	}
	return a.add(name, uint32(info.Mode().Perm()), f, info.Size())
}

// tree adds a folder of the host with all files in it.
func (a *archive) tree(name, source string) error {
	return filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return a.file(path.Join(name, rel), file)
	})
}

// close ends the archive.
func (a *archive) close() error {
	if err := a.entry("TRAILER!!!", 0, strings.NewReader(""), 0); err != nil {
		return err
	}
	return a.w.Flush()
}

func (a *archive) add(name string, perm uint32, content io.Reader, size int64) error {
	name = merged(name)
	if a.has[name] {
		return nil
	}
	if err := a.folder(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, unix.S_IFREG|perm, content, size)
}

// folder adds a folder and those above it, if they are not there.
func (a *archive) folder(name string) error {
	if name == "." || a.has[name] {
		return nil
	}
	if err := a.folder(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, unix.S_IFDIR|0o755, strings.NewReader(""), 0)
}

func (a *archive) entry(name string, mode uint32, content io.Reader, size int64) error {
	a.has[name] = true
	a.ino++
	// The fields are ino, mode, uid, gid, nlink, mtime, filesize, major and
	// minor of the device and of what it stands for, namesize, checksum.
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if _, err := a.w.WriteString(head + padding(len(head))); err != nil {
		return fmt.Errorf("cannot write the initramfs: %w", err)
	}
	n, err := io.Copy(a.w, content)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of %d were there", n, size)
	}
	if err == nil {
		_, err = a.w.WriteString(padding(int(n)))
	}
	if err != nil {
		return fmt.Errorf("cannot write %s to the initramfs: %w", name, err)
	}
	return nil
}

// padding fills up to a multiple of four bytes.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, top := range usrMerged() {
		if strings.HasPrefix(name, top+"/") {
			return "usr/" + name
		}
	}
	return name
}
