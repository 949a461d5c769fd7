package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// leak writes log lines into a file at a steady rate until it is stopped.
type leak struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	held   []*os.File // deleted, and open until the end
}

// start begins to write rate (20Mi, 512Ki) bytes a second into file.
func (l *leak) start(ctx context.Context, file, rate string) error {
	perSecond, err := parseRate(rate)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // whoever may ask says where
		return fmt.Errorf("cannot make folder for %s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // likewise
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", file, err)
	}
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, l.cancel = context.WithCancel(ctx)
	go pour(ctx, f, perSecond)
	return nil
}

func (l *leak) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// pour writes ten times a second; what a full disk refuses is left out.
func pour(ctx context.Context, f *os.File, perSecond int) {
	defer f.Close()
	line := strings.Repeat("DEBUG request handled, cart and all its items follow; ", 2)[:99] + "\n"
	chunk := []byte(strings.Repeat(line, max(1, perSecond/10/len(line))))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = f.Write(chunk)
		}
	}
}

func parseRate(s string) (int, error) {
	unit := 1
	for suffix, u := range map[string]int{"Ki": 1 << 10, "Mi": 1 << 20} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = n, u
			break
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("cannot use rate %q: want a number with Ki or Mi", s)
	}
	return n * unit, nil
}

// fill writes so many bytes at once: into a new file, which it deletes and holds
// open where then is "hold", or as log lines to stdout where file is "-".
func (l *leak) fill(file, bytes, then string) error {
	n, err := parseRate(bytes)
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := fmt.Print(strings.Repeat(strings.Repeat("x", 99)+"\n", n/100+1))
		return err
	}
	f, err := os.Create(file) //nolint:gosec // whoever may ask says where
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", file, err)
	}
	if _, err := f.Write(make([]byte, n)); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if then != "hold" {
		return f.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, f)
	return os.Remove(file) //nolint:gosec // likewise
}
