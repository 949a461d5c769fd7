package top

import (
	"context"
	"errors"
	"fmt"
	"io"

	tea "charm.land/bubbletea/v2"
)

// Run shows the live table until the person quits or ctx ends. fetch is asked
// once a second, never twice at a time.
func Run(ctx context.Context, in io.Reader, out io.Writer, fetch func() (Report, error), by Order, filter string) error {
	p := tea.NewProgram(newModel(fetch, by, filter), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out))
	_, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // ctx ended, or Ctrl-C
	}
	if err != nil {
		return fmt.Errorf("cannot show the table: %w", err)
	}
	return nil
}
