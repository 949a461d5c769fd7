package fetch

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ownProgram is the file that the process will run, from the namespace where
// it is.
type ownProgram struct {
	file *os.File
	tree int   // a mount of it, -1: none
	copy int64 // bytes to copy if it cannot be mounted, 0: none
}

// takeProgram takes hold of it. /proc/self/exe leads to what runs even when an
// upgrade put another file in its place; but then it has no name any more, and
// the kernel mounts nothing that has none, so it is copied: some 20 ms.
func takeProgram(path string) (*ownProgram, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &ownProgram{file: f, tree: -1}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Nlink == 0 {
		p.copy = st.Size
		return p, nil
	}
	if err == nil {
		p.tree, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// bring puts it at a place in the new namespace.
func (p *ownProgram) bring(to string) error {
	if p.tree < 0 {
		out, err := os.OpenFile(to, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, p.file)
		return errors.Join(err, out.Close())
	}
	if err := unix.MoveMount(p.tree, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	return remount(to, unix.MS_RDONLY)
}

func (p *ownProgram) close() {
	_ = p.file.Close()
	if p.tree >= 0 {
		_ = unix.Close(p.tree)
	}
}
