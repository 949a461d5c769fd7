//go:build linux

package disk

import (
	"bytes"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// waitedForCPU is how long the calling thread was ready to run while others had
// the CPU (the second figure of /proc/thread-self/schedstat, in ns). On a busy
// node that is most of the time a look takes, and costs nobody anything. 0 where
// the kernel does not tell.
func waitedForCPU(proc string) time.Duration {
	fd, err := unix.Open(filepath.Join(proc, "thread-self/schedstat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [96]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0
	}
	fields := bytes.Fields(buf[:max(n, 0)])
	if len(fields) < 2 {
		return 0
	}
	ns, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}
