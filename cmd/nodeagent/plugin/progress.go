package plugin

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

// display shows how restarts go. It is told all of their states again and
// again, at least once a second.
type display interface {
	update(states []state)
	close() // may be called twice
}

// newDisplay redraws on a terminal, and writes a line for each change
// everywhere else.
func newDisplay(o *options) display {
	if f, ok := o.says().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newLive(f)
	}
	return &lines{out: o.says(), told: map[string]string{}}
}

// unheard is how long it may take until an agent takes a restart up before a
// person is told where to look.
const unheard = 15 * time.Second

// progress says in words how one restart stands.
func progress(s state, now time.Time) string {
	switch {
	case s.gone:
		return "its Restart was deleted"
	case restart.Waiting(s.restart) && now.Sub(s.asked) > unheard:
		return "asked for; no agent has taken it up yet: see kubectl -n nodeagent get pods"
	case restart.Waiting(s.restart):
		return "asked for"
	}
	return string(s.restart.Status.Phase) + ": " + strings.Join(strings.Fields(s.restart.Status.Message), " ")
}

// lines is the display for logs and pipes.
type lines struct {
	out  io.Writer
	told map[string]string
}

func (l *lines) update(states []state) {
	for _, s := range states {
		if now := progress(s, time.Now()); l.told[s.name] != now {
			l.told[s.name] = now
			fmt.Fprintf(l.out, "%s %s\n", s.name, now)
		}
	}
}

func (l *lines) close() {}

// live is the display for a terminal. It takes no keys: Ctrl-C stays a signal.
type live struct {
	program *tea.Program
	done    sync.WaitGroup
	once    sync.Once
}

func newLive(out *os.File) *live {
	l := &live{program: tea.NewProgram(picture{width: 100}, tea.WithInput(nil), tea.WithOutput(out), tea.WithoutSignalHandler())}
	l.done.Go(func() { _, _ = l.program.Run() })
	return l
}

func (l *live) update(states []state) { l.program.Send(slices.Clone(states)) }

func (l *live) close() {
	l.once.Do(func() {
		l.program.Quit()
		l.done.Wait()
	})
}

// picture is what is on the terminal.
type picture struct {
	states []state
	frame  int
	width  int
}

type tick struct{}

func nextFrame() tea.Cmd {
	return tea.Tick(150*time.Millisecond, func(time.Time) tea.Msg { return tick{} })
}

// Init starts the clock that turns the wheel.
func (p picture) Init() tea.Cmd { return nextFrame() }

// Update takes news, a turn of the wheel, or another size of the terminal.
func (p picture) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case []state:
		p.states = msg
	case tea.WindowSizeMsg:
		p.width = msg.Width
	case tick:
		p.frame++
		return p, nextFrame()
	}
	return p, nil
}

// View draws one line for each restart.
func (p picture) View() tea.View {
	return tea.NewView(p.draw(time.Now()))
}

func (p picture) draw(now time.Time) string {
	var b strings.Builder
	for _, s := range p.states {
		b.WriteString(clip(fmt.Sprintf("%s %s %s %s %s", mark(s, p.frame), s.name, bar(s), elapsed(s, now), progress(s, now)), p.width))
		b.WriteByte('\n')
	}
	return b.String()
}

func mark(s state, frame int) string {
	wheel := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	switch {
	case !s.ended():
		return wheel[frame%len(wheel)]
	case codeOf(s) == ExitDone:
		return "✓"
	}
	return "✗"
}

// bar is how many of the old pods are gone.
func bar(s state) string {
	const width = 10
	all, gone := len(s.restart.Status.OldPods), len(s.restart.Status.ReplacedPods)
	if restart.Waiting(s.restart) || all == 0 {
		return "[" + strings.Repeat(" ", width) + "]"
	}
	filled := width * min(gone, all) / all
	return fmt.Sprintf("[%s%s] %d/%d", strings.Repeat("█", filled), strings.Repeat(" ", width-filled), gone, all)
}

func elapsed(s state, now time.Time) string {
	if f := s.restart.Status.Finished; s.ended() && f != nil {
		now = f.Time
	}
	return max(0, now.Sub(s.asked)).Round(time.Second).String()
}

// clip keeps a line to the terminal's width, and others' words from moving
// the cursor.
func clip(line string, width int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line)
	if runes := []rune(clean); len(runes) > width && width > 0 {
		return string(runes[:width-1]) + "…"
	}
	return clean
}
