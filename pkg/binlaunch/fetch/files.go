package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// opened are the files that the sources of a job name.
type opened struct {
	files []*os.File
	tags  map[string]string // what tells one version from another, by source
}

func (o *opened) Close() {
	for _, f := range o.files {
		_ = f.Close()
	}
}

// openFiles opens what has the scheme file, and tells the job's items the
// descriptors. It does so with the rights of the confined user: root's would
// let a spec read any secret of the node.
func openFiles(items []item, job *pull.Job, uid, gid int) *opened {
	o := &opened{tags: map[string]string{}}
	for i := range items {
		for _, src := range append(append([]string{}, items[i].sources...), items[i].signatures...) {
			if !strings.HasPrefix(src, "file:") {
				continue
			}
			it := &job.Items[i]
			if it.Files == nil {
				it.Files, it.NoFiles = map[string]int{}, map[string]string{}
			}
			f, tag, err := openAs(src, uid, gid)
			if err != nil {
				it.NoFiles[src] = err.Error() // there may be a mirror
				continue
			}
			it.Files[src] = 3 + len(o.files)
			o.files = append(o.files, f)
			o.tags[src] = tag
		}
	}
	return o
}

func openAs(src string, uid, gid int) (*os.File, string, error) {
	u, err := url.Parse(src)
	if err != nil {
		return nil, "", err
	}
	fd := -1
	err = osthread.Run(func() error {
		if err := asUser(uid, gid); err != nil {
			return err
		}
		fd, err = unix.Open(u.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if errors.Is(err, unix.EACCES) {
		return nil, "", fmt.Errorf("not everybody may read it: make the file readable and its folders passable for others (chmod o+r, o+x)")
	}
	if err != nil {
		return nil, "", fmt.Errorf("cannot open it: %w", err)
	}
	f := os.NewFile(uintptr(fd), u.Path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, "", errors.Join(errors.New("it is no regular file"), err, f.Close())
	}
	return f, fmt.Sprintf("file %d %d %d.%d", st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec), nil
}

// asUser gives this thread's looks at files the rights of a user (setfsuid(2)
// takes the capabilities that would go beyond them as well).
func asUser(uid, gid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("cannot leave groups: %w", errno)
	}
	if err := unix.Setfsgid(gid); err != nil {
		return err
	}
	return unix.Setfsuid(uid)
}
