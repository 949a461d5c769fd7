//go:build linux

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// The kernel's struct linux_dirent64 (getdents64(2)): u64 d_ino, s64 d_off,
// u16 d_reclen, u8 d_type, then the name with its NUL, padded to 8 bytes.
const (
	direntOff    = 8
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

var errDirent = errors.New("malformed directory entry")

// dirent is one entry of a folder. Its name ends with a NUL and points into
// the buffer that was read.
type dirent struct {
	off  int64
	kind uint8
	name []byte
}

// nextDirent takes the first entry off buf.
func nextDirent(buf []byte) (d dirent, rest []byte, err error) {
	if len(buf) <= direntName {
		return dirent{}, nil, errDirent
	}
	reclen := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
	if reclen <= direntName || reclen > len(buf) {
		return dirent{}, nil, errDirent
	}
	name := buf[direntName:reclen]
	end := bytes.IndexByte(name, 0)
	if end <= 0 {
		return dirent{}, nil, errDirent
	}
	return dirent{
		off:  int64(binary.NativeEndian.Uint64(buf[direntOff:])),
		kind: buf[direntType],
		name: name[:end+1],
	}, buf[reclen:], nil
}

// dots tells whether the entry is the folder itself or its parent.
func (d dirent) dots() bool {
	n := d.name[:len(d.name)-1]
	return len(n) <= 2 && n[0] == '.' && n[len(n)-1] == '.'
}
