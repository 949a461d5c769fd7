package keeper

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// watchDisk ends the task when its sandbox folder holds more than it may. It is
// no hard bound: what is written between two looks is over it. The keeper does
// it and not the agent, so that it holds while no agent runs.
func (k *keeper) watchDisk() {
	shortest := time.Duration(max(k.plan.DiskEverySeconds, 1)) * time.Second
	pause, before := shortest, int64(-1)
	for {
		time.Sleep(pause)
		begun := time.Now()
		use := k.diskUse()
		if use > k.plan.Disk {
			k.end("disk")
			return
		}
		// A folder that rests is looked at less often; one of many files takes
		// a twentieth of a core at most.
		pause = max(nextPause(pause, shortest, use != before), 20*time.Since(begun))
		before = use
	}
}

// nextPause is pure.
func nextPause(last, shortest time.Duration, grew bool) time.Duration {
	if grew {
		return shortest
	}
	const longest = 12
	return min(2*last, longest*shortest)
}

// diskUse is what is allocated beneath the sandbox folder, and by files that
// were deleted there and are still open, in bytes.
func (k *keeper) diskUse() int64 {
	var st unix.Stat_t
	if unix.Fstat(k.files.sandbox, &st) != nil {
		return 0
	}
	fd, err := unix.Openat(k.files.sandbox, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	return k.walk(fd, st.Dev, 0) + k.deleted(st.Dev)
}

const (
	sector   = 512 // the unit of st_blocks
	deepest  = 256 // folders in folders
	atOnce   = 256 // names
	mostSeen = 4096
)

// walk takes fd over. A file with several names is counted for each.
func (k *keeper) walk(fd int, dev uint64, depth int) (sum int64) {
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	for sum <= k.plan.Disk {
		names, err := dir.Readdirnames(atOnce)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
				continue
			}
			sum += st.Blocks * sector
			if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth == deepest {
				continue
			}
			child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				sum += k.walk(child, dev, depth+1)
			}
		}
		if err != nil {
			break
		}
	}
	return sum
}

// deleted looks through the open files of the task's processes.
func (k *keeper) deleted(dev uint64) (sum int64) {
	if k.proc < 0 {
		return 0
	}
	fd, err := unix.Openat(k.proc, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	seen := map[uint64]bool{}
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 1 {
			sum += k.deletedOf(name+"/fd", dev, seen)
		}
	}
	return sum
}

func (k *keeper) deletedOf(folder string, dev uint64, seen map[uint64]bool) (sum int64) {
	fd, err := unix.Openat(k.proc, folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(atOnce)
		for _, name := range names {
			var st unix.Stat_t
			// The link is followed: that is the open file itself.
			if unix.Fstatat(fd, name, &st, 0) != nil || st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			if (st.Dev == dev || k.plan.OwnUser) && !seen[st.Ino] && len(seen) < mostSeen {
				seen[st.Ino] = true
				sum += st.Blocks * sector
			}
		}
		if err != nil {
			return sum
		}
	}
}
