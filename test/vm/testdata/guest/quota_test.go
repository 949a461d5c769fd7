package guest

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

const (
	fsIocFsgetxattr    = 0x801c581f
	fsIocFssetxattr    = 0x401c5820
	fsXflagProjinherit = 0x200
)

// setProject makes all that is made in a folder from now on count for project.
func setProject(t *testing.T, fd int, project uint32) {
	t.Helper()
	var x fsxattr
	if err := ioctl(fd, fsIocFsgetxattr, &x); err != nil {
		t.Fatalf("FS_IOC_FSGETXATTR: %v", err)
	}
	x.projid, x.xflags = project, x.xflags|fsXflagProjinherit
	if err := ioctl(fd, fsIocFssetxattr, &x); err != nil {
		t.Fatalf("FS_IOC_FSSETXATTR: %v", err)
	}
}

func ioctl(fd int, request uintptr, x *fsxattr) error {
	if _, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x))); err != 0 {
		return err
	}
	return nil
}

// dqblk is struct if_dqblk of linux/quota.h: limits in units of 1024 bytes.
type dqblk struct {
	bhard, bsoft, space, ihard, isoft, inodes, btime, itime uint64
	valid                                                   uint32
	_                                                       [4]byte
}

const (
	prjquota    = 2
	qSetquota   = 0x800008<<8 | prjquota
	validLimits = 1 // QIF_BLIMITS
)

func setLimit(t *testing.T, project uint32, bytes uint64) {
	t.Helper()
	device, err := unix.BytePtrFromString(deviceOf(t, "/tmp"))
	if err != nil {
		t.Fatal(err)
	}
	d := dqblk{bhard: bytes >> 10, bsoft: bytes >> 10, valid: validLimits}
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL, qSetquota, uintptr(unsafe.Pointer(device)), uintptr(project),
		uintptr(unsafe.Pointer(&d)), 0, 0)
	if errno != 0 {
		t.Fatalf("quotactl: %v", errno)
	}
}

// withoutCap calls f on a thread that lacks CAP_SYS_RESOURCE, whose owner ext4
// does not hold to a quota (XFS does).
func withoutCap(t *testing.T, f func() error) error {
	t.Helper()
	return osthread.Run(func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&head, &sets[0]); err != nil {
			return err
		}
		sets[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err := unix.Capset(&head, &sets[0]); err != nil {
			return err
		}
		return f()
	})
}

func deviceOf(t *testing.T, point string) string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var device string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); words[1] == point {
			device = words[0] // the last one is on top
		}
	}
	return device
}
