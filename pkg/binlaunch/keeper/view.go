package keeper

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// makeView takes the steps of the plan on the calling thread, which is in a
// mount namespace of its own.
func makeView(steps []plan.Step) error {
	unix.Umask(0) // the steps have the modes that they mean
	defer unix.Umask(0o022)
	for i := range steps {
		s := &steps[i]
		err := step(s)
		if err == nil || (s.Optional && errors.Is(err, unix.ENOENT)) {
			continue
		}
		return errors.New("cannot make the task's view: " + names[s.Op] + " " + strings.TrimSpace(s.Source+" "+s.Target) + ": " + err.Error())
	}
	return nil
}

var names = [...]string{"", "mount", "folder", "file", "link", "device", "read-only", "pivot to"} //nolint:gochecknoglobals // a constant table

func step(s *plan.Step) error {
	switch s.Op {
	case plan.Mount:
		return mount(s)
	case plan.Folder:
		err := unix.Mkdir(s.Target, s.Mode)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	case plan.File:
		fd, err := unix.Open(s.Target, unix.O_CREAT|unix.O_CLOEXEC|unix.O_WRONLY|unix.O_NOFOLLOW, 0o444)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	case plan.Link:
		return unix.Symlink(s.Source, s.Target)
	case plan.Device:
		return unix.Mknod(s.Target, s.Mode, int(s.Dev))
	case plan.Seal:
		return unix.MountSetattr(unix.AT_FDCWD, s.Target, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: s.Flags})
	case plan.Pivot:
		return pivot(s.Target)
	}
	return errors.New("this keeper does not know the step")
}

func mount(s *plan.Step) error {
	const bound = unix.MS_BIND | unix.MS_REC
	flags := uintptr(s.Flags)
	if flags&unix.MS_BIND == 0 || flags&unix.MS_REMOUNT != 0 {
		return unix.Mount(s.Source, s.Target, s.Type, flags, s.Data)
	}
	if err := unix.Mount(s.Source, s.Target, "", flags&bound, ""); err != nil || flags&^bound == 0 {
		return err
	}
	return unix.Mount("", s.Target, "", flags&^unix.MS_REC|unix.MS_REMOUNT, "")
}

func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// Stacked on one place, so that no folder for the old root is needed.
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// find resolves a command as execvp does, in the task's own view. It does not
// ask who may execute: execve does.
func find(p *plan.Plan) (string, error) {
	command := p.Argv[0]
	if strings.Contains(command, "/") {
		if !path.IsAbs(command) {
			command = path.Join(p.Cwd, command)
		}
		return command, nil
	}
	for _, e := range p.Env {
		dirs, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(dirs, ":") {
			candidate := path.Join("/", dir, command)
			if st, err := os.Stat(candidate); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return candidate, nil
			}
		}
	}
	return "", errors.New("the task's command " + command + " is in no folder of its PATH")
}
