package keeper

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// disk looks whether the task's sandbox folder holds more than it may. It is no
// hard bound: what is written between two looks is over it. The keeper does it
// and not the agent, so that it holds while no agent runs.
//
// A task that used no CPU since the last look has written nothing, and its
// folder is not looked at again, but every ten minutes all the same: somebody
// else may have been given an open file of it.
type disk struct {
	k        *keeper
	shortest time.Duration
	pause    time.Duration // until the next look
	before   int64         // bytes at the last look
	looked   time.Time
	cpu      []byte // what the kernel told of the task's CPU time before the last look
	room     []byte // for what it tells now
	names    [][]byte
	seen     map[uint64]bool
}

// unseen is how long a folder is not looked at when its task does not run.
const unseen = 10 * time.Minute

func newDisk(k *keeper) *disk {
	shortest := time.Duration(max(k.plan.DiskEverySeconds, 1)) * time.Second
	const room = 512 // cpu.stat of cgroup v2 has some 300 bytes
	return &disk{k: k, shortest: shortest, pause: shortest, before: -1, room: make([]byte, room), seen: map[uint64]bool{}}
}

// look tells whether there is too much, and settles when to look again.
func (d *disk) look() (over bool) {
	begun := time.Now()
	// Before the look, so that what the task writes meanwhile counts as new.
	if !d.ran() && begun.Sub(d.looked) < unseen {
		d.pause = nextPause(d.pause, d.shortest, false)
		return false
	}
	d.looked = begun
	use := d.use()
	// A folder that rests is looked at less often; one of many files takes a
	// twentieth of a core at most.
	d.pause = max(nextPause(d.pause, d.shortest, use != d.before), 20*time.Since(begun))
	d.before = use
	return use > d.k.plan.Disk
}

// nextPause is pure.
func nextPause(last, shortest time.Duration, grew bool) time.Duration {
	if grew {
		return shortest
	}
	const longest = 12
	return min(2*last, longest*shortest)
}

// ran tells whether the task has used CPU time since it was last asked; true
// when that cannot be known.
func (d *disk) ran() bool {
	if d.k.files.usage < 0 {
		return true
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Pread(d.k.files.usage, d.room, 0) })
	if err != nil || n == 0 || n == len(d.room) {
		return true
	}
	same := bytes.Equal(d.room[:n], d.cpu)
	d.cpu = append(d.cpu[:0], d.room[:n]...)
	return !same
}

// use is what is allocated beneath the sandbox folder, and by files that were
// deleted there and are still open, in bytes.
func (d *disk) use() int64 {
	fd, err := openFolderAt(d.k.files.sandbox, ".")
	if err != nil {
		return 0
	}
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st) != nil {
		_ = unix.Close(fd)
		return 0
	}
	return d.walk(fd, device(&st), 0) + d.deleted(device(&st))
}

const (
	sector   = 512 // the unit of stx_blocks
	deepest  = 256 // folders in folders
	mostSeen = 4096
)

// walk takes fd over. A file with several names is counted for each.
func (d *disk) walk(fd int, dev uint64, depth int) (sum int64) {
	defer unix.Close(fd)
	eachName(fd, d.buffer(depth), func(name []byte) bool {
		var st unix.Statx_t
		if !statAt(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) || device(&st) != dev {
			return true
		}
		sum += int64(st.Blocks) * sector
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && depth < deepest {
			if child, err := openFolderAt(fd, string(name)); err == nil {
				sum += d.walk(child, dev, depth+1)
			}
		}
		return sum <= d.k.plan.Disk
	})
	return sum
}

// buffer is one for the names of a folder so deep, made once.
func (d *disk) buffer(depth int) []byte {
	for len(d.names) <= depth {
		d.names = append(d.names, make([]byte, namesAtOnce))
	}
	return d.names[depth]
}

// deleted looks through the open files of the task's processes.
func (d *disk) deleted(dev uint64) (sum int64) {
	if d.k.proc < 0 {
		return 0
	}
	proc, err := openFolderAt(d.k.proc, ".")
	if err != nil {
		return 0
	}
	defer unix.Close(proc)
	clear(d.seen)
	eachName(proc, d.buffer(0), func(name []byte) bool {
		if pid := string(name); pid != "1" && pid[0] >= '1' && pid[0] <= '9' {
			sum += d.deletedOf(pid+"/fd", dev)
		}
		return true
	})
	return sum
}

func (d *disk) deletedOf(folder string, dev uint64) (sum int64) {
	fd, err := openFolderAt(d.k.proc, folder)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	eachName(fd, d.buffer(1), func(name []byte) bool {
		var st unix.Statx_t
		// The link is followed: that is the open file itself.
		if !statAt(fd, name, &st, 0) || st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return true
		}
		if (device(&st) == dev || d.k.plan.OwnUser) && !d.seen[st.Ino] && len(d.seen) < mostSeen {
			d.seen[st.Ino] = true
			sum += int64(st.Blocks) * sector
		}
		return true
	})
	return sum
}
