// Package terminal runs a program in a terminal, as a person would, and tells
// what is on its screen: a pseudo-terminal of the kernel, and an emulator that
// draws what comes out of it and answers what is asked of it.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// Terminal is a program that runs in one.
type Terminal struct {
	cmd    *exec.Cmd
	pty    *os.File
	loops  sync.WaitGroup
	mu     sync.Mutex // of the screen, but for what it answers
	screen *vt.Emulator
}

// Start runs cmd in a terminal of so many columns and lines.
func Start(cmd *exec.Cmd, columns, lines int) (*Terminal, error) {
	cmd.Env = append(cmd.Environ(), "TERM=xterm-256color")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(lines)})
	if err != nil {
		return nil, fmt.Errorf("cannot run %s in a terminal: %w", cmd.Path, err)
	}
	t := &Terminal{cmd: cmd, pty: f, screen: vt.NewEmulator(columns, lines)}
	t.loops.Go(func() { _, _ = io.Copy(drawing{t}, f) }) // ends with the program
	t.loops.Go(func() { _, _ = io.Copy(f, t.screen) })   // answers; ends with the emulator
	return t, nil
}

// Type presses keys: text, "\r" for enter, "\x1b" for escape.
func (t *Terminal) Type(keys string) error {
	_, err := io.WriteString(t.pty, keys)
	return err
}

// Screen is what a person sees, line by line.
func (t *Terminal) Screen() string {
	t.mu.Lock()
	lines := strings.Split(t.screen.String(), "\n")
	t.mu.Unlock()
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \r")
	}
	return strings.Join(lines, "\n")
}

// Resize makes the terminal another size.
func (t *Terminal) Resize(columns, lines int) error {
	t.mu.Lock()
	t.screen.Resize(columns, lines)
	t.mu.Unlock()
	return pty.Setsize(t.pty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(lines)})
}

// Until waits until the screen is as it should be.
func (t *Terminal) Until(ctx context.Context, what string, so func(screen string) bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		screen := t.Screen()
		if so(screen) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s; the screen shows\n%s", what, screen)
		case <-tick.C:
		}
	}
}

// Wait waits for the program's own end.
func (t *Terminal) Wait(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- t.cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = errors.Join(fmt.Errorf("%s did not end", t.cmd.Path), t.cmd.Process.Kill())
		err = errors.Join(err, <-done)
	}
	// The pipe of what it answers, not the emulator: that is still read from.
	if answers, ok := t.screen.InputPipe().(io.Closer); ok {
		err = errors.Join(err, answers.Close())
	}
	err = errors.Join(err, t.pty.Close())
	t.loops.Wait()
	return err
}

// drawing is the terminal as its program writes to it.
type drawing struct{ t *Terminal }

// Write implements io.Writer.
func (d drawing) Write(p []byte) (int, error) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	return d.t.screen.Write(p)
}
