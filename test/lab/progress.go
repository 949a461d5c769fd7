package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// quietFor is how long progress on something that is no terminal stays silent
// before it says again what it is doing.
const quietFor = 20 * time.Second

// progress tells a person what the lab does and for how long already. On a
// terminal the current step is one line that is rewritten every second; in a
// log it is repeated now and then, so that nobody takes work for a hang.
type progress struct {
	w     io.Writer
	tty   bool
	width int
	start time.Time

	mu      sync.Mutex
	step    string
	since   time.Time
	printed time.Time
	stop    chan struct{}
	done    sync.WaitGroup
}

func newProgress(f *os.File) *progress {
	p := &progress{w: f, start: time.Now(), width: 80, stop: make(chan struct{})}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
		p.tty = true
		if size.Col > 20 {
			p.width = int(size.Col)
		}
	}
	p.done.Go(p.tick)
	return p
}

// line prints a lasting line.
func (p *progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "%s %s\n", p.stamp(), fmt.Sprintf(format, args...))
	p.step = ""
}

// doing names the step in progress; an empty name ends it.
func (p *progress) doing(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	step := fmt.Sprintf(format, args...)
	if p.step == "" {
		p.since, p.printed = time.Now(), time.Time{}
		if !p.tty {
			// A step that ends at once gets its lasting line; only one that
			// takes a while is announced.
			p.printed = time.Now().Add(2*time.Second - quietFor)
		}
	}
	p.step = step
	p.show()
}

// close ends the ticking. No method may be called after it.
func (p *progress) close() {
	close(p.stop)
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.show()
			p.mu.Unlock()
		}
	}
}

func (p *progress) show() {
	if p.step == "" {
		return
	}
	text := fmt.Sprintf("%s %s … %s", p.stamp(), p.step, time.Since(p.since).Round(time.Second))
	if p.tty {
		if r := []rune(text); len(r) >= p.width {
			text = string(r[:p.width-1])
		}
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		return
	}
	if time.Since(p.printed) >= quietFor {
		fmt.Fprintln(p.w, text)
		p.printed = time.Now()
	}
}

func (p *progress) clear() {
	if p.tty {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
	}
}

func (p *progress) stamp() string {
	d := time.Since(p.start).Round(100 * time.Millisecond)
	if d < time.Minute {
		return fmt.Sprintf("[%5.1fs]", d.Seconds())
	}
	return fmt.Sprintf("[%2dm%02ds]", int(d.Minutes()), int(d.Seconds())%60)
}

// lastLines returns the last n lines of a file, indented, for an error message.
func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return "  (no log: " + err.Error() + ")"
	}
	defer f.Close()
	const window = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > window {
		_, _ = f.Seek(-window, io.SeekEnd)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "  (cannot read the log: " + err.Error() + ")"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
