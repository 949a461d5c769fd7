package keeper

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Folders are read without package os: a keeper that rests for months must not
// gather garbage with each look.

// namesAtOnce is the size of the buffer for a folder's names, in bytes.
const namesAtOnce = 4 << 10

// eachName calls f for the names in the folder fd, until it returns false. A name
// is valid during the call, and a zero byte follows it.
func eachName(fd int, b []byte, f func(name []byte) bool) {
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.Getdents(fd, b) })
		if err != nil || n <= 0 {
			return
		}
		for rest := b[:n]; len(rest) > 0; {
			// struct linux_dirent64: inode, offset, length, type, name
			const lengthAt, nameAt = 16, 19
			length := binary.NativeEndian.Uint16(rest[lengthAt:])
			name := rest[nameAt:length]
			name = name[:bytes.IndexByte(name, 0)]
			if s := string(name); s != "." && s != ".." && !f(name) {
				return
			}
			rest = rest[length:]
		}
	}
}

// statAt is statx of a name that eachName gave.
func statAt(fd int, name []byte, st *unix.Statx_t, flags int) bool {
	const mask = unix.STATX_BASIC_STATS
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(name))), uintptr(flags), mask, uintptr(unsafe.Pointer(st)), 0)
	return errno == 0
}

// openFolderAt opens a folder by a name that eachName gave, and no link.
func openFolderAt(fd int, name string) (int, error) {
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// device is the file system that a file is of.
func device(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }
