package keeper

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// pump moves the task's output from its pipe into files of bounded size. The
// task waits when the disk is slow, but not when it is full: then bytes are
// dropped and counted, since a program must not hang because of its log.
type pump struct {
	pipe    int
	folder  int
	stop    [2]int
	done    chan struct{}
	max     int64
	files   int
	out     int // -1: could not be opened
	size    int64
	dropped int64
}

func newPump(pipe, folder int, p *plan.Plan) *pump {
	return &pump{pipe: pipe, folder: folder, stop: newStop(), done: make(chan struct{}), max: p.OutputMax, files: p.OutputFiles, out: -1}
}

func newStop() (p [2]int) {
	if unix.Pipe2(p[:], unix.O_CLOEXEC) != nil {
		return [2]int{-1, -1}
	}
	return p
}

func (p *pump) run() {
	defer close(p.done)
	b := make([]byte, 32<<10)
	_ = unix.SetNonblock(p.pipe, true)
	fds := []unix.PollFd{{Fd: int32(p.pipe), Events: unix.POLLIN}, {Fd: int32(p.stop[0]), Events: unix.POLLIN}}
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(p.pipe, b) })
		switch {
		case n > 0:
			p.put(b[:n])
		case err == nil:
			return // nobody has the other end any more
		case fds[1].Revents != 0:
			return // the task ended; whoever still has the other end is none of it
		default:
			_, _ = ignoringEINTR(func() (int, error) { return unix.Poll(fds, -1) })
		}
	}
}

// finish waits for what is still in the pipe and returns how many bytes were
// lost altogether.
func (p *pump) finish() int64 {
	_ = unix.Close(p.stop[1])
	<-p.done
	return p.dropped
}

func (p *pump) put(b []byte) {
	if p.out >= 0 && p.size > 0 && p.size+int64(len(b)) > p.max {
		p.rotate()
	}
	for len(b) > 0 {
		if p.out < 0 && !p.open() {
			p.dropped += int64(len(b))
			return
		}
		// Never more than one file may hold, whatever comes at once.
		room := min(int64(len(b)), max(p.max-p.size, 1))
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(p.out, b[:room]) })
		if err != nil || n == 0 {
			p.dropped += int64(len(b))
			return
		}
		p.size += int64(n)
		if b = b[n:]; len(b) > 0 && p.size >= p.max {
			p.rotate()
		}
	}
}

func (p *pump) open() bool {
	fd, err := unix.Openat(p.folder, plan.OutputName, unix.O_CREAT|unix.O_APPEND|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		p.size = st.Size
	}
	p.out = fd
	return true
}

// rotate makes output.1 of output and so on; the last one goes.
func (p *pump) rotate() {
	_ = unix.Close(p.out)
	p.out, p.size = -1, 0
	name := func(n int) string {
		if n == 0 {
			return plan.OutputName
		}
		return plan.OutputName + "." + strconv.Itoa(n)
	}
	if p.files <= 1 {
		_ = unix.Unlinkat(p.folder, plan.OutputName, 0)
		return
	}
	for n := p.files - 1; n > 0; n-- {
		_ = unix.Renameat(p.folder, name(n-1), p.folder, name(n))
	}
}
