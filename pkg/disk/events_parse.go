//go:build linux

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// The kernel's structs (fanotify(7)): fanotify_event_metadata, then, for a
// group with FAN_REPORT_DFID_NAME, one fanotify_event_info_fid with the handle
// of a folder and the name in it.
const (
	eventVersion  = 4  // u8 vers
	eventMetaLen  = 6  // u16 metadata_len
	eventMask     = 8  // u64 mask
	eventMetadata = 24 // its size
	infoLen       = 2  // u16 len, after u8 info_type and u8 pad
	infoFsid      = 4  // 8 bytes
	infoHandle    = 12 // u32 handle_bytes, i32 handle_type, the bytes
	handleHeader  = 8
	maxHandle     = 128 // MAX_HANDLE_SZ
)

var errEvent = errors.New("malformed fanotify event")

// event is one change in a folder. Its bytes point into the buffer read.
type event struct {
	mask   uint64
	folder []byte // folderKey of the folder; nil: the event names none
	name   []byte // without its NUL; "." for the folder itself
}

func (e event) overflow() bool { return e.mask&unix.FAN_Q_OVERFLOW != 0 }

// nextEvent takes the first event off buf.
func nextEvent(buf []byte) (e event, rest []byte, err error) {
	if len(buf) < eventMetadata {
		return event{}, nil, errEvent
	}
	n := int(binary.NativeEndian.Uint32(buf))
	meta := int(binary.NativeEndian.Uint16(buf[eventMetaLen:]))
	if buf[eventVersion] != unix.FANOTIFY_METADATA_VERSION || meta < eventMetadata || n < meta || n > len(buf) {
		return event{}, nil, errEvent
	}
	e.mask = binary.NativeEndian.Uint64(buf[eventMask:])
	for info := buf[meta:n]; len(info) > 0; {
		if len(info) < infoFsid {
			return event{}, nil, errEvent
		}
		size := int(binary.NativeEndian.Uint16(info[infoLen:]))
		if size < infoFsid || size > len(info) {
			return event{}, nil, errEvent
		}
		if info[0] == unix.FAN_EVENT_INFO_TYPE_DFID_NAME {
			if e.folder, e.name, err = parseFid(info[:size]); err != nil {
				return event{}, nil, err
			}
		}
		info = info[size:]
	}
	return e, buf[n:], nil
}

// parseFid takes a fanotify_event_info_fid apart. What is compared as the key
// lies there in one piece: fsid, length, type, handle.
func parseFid(info []byte) (folder, name []byte, err error) {
	if len(info) < infoHandle+handleHeader {
		return nil, nil, errEvent
	}
	n := binary.NativeEndian.Uint32(info[infoHandle:])
	if n > maxHandle {
		return nil, nil, errEvent
	}
	end := infoHandle + handleHeader + int(n)
	if end > len(info) {
		return nil, nil, errEvent
	}
	name = info[end:]
	stop := bytes.IndexByte(name, 0)
	if stop < 0 {
		return nil, nil, errEvent
	}
	return info[infoFsid:end], name[:stop], nil
}
