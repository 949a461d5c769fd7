package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// tick is how often a writer writes.
const tick = 50 * time.Millisecond

// appendTo appends lines to a file at a rate in bytes a second until it has
// most bytes or ctx ends. A full disk is no error: it was to become full.
func appendTo(ctx context.Context, name string, rate, most int64) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	t := time.NewTicker(tick)
	defer t.Stop()
	begun, wrote := time.Now(), int64(0)
	for wrote < most {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		due := min(most, int64(time.Since(begun).Seconds()*float64(rate)))
		for wrote < due {
			n, err := f.Write(logLines(min(due-wrote, 8*kib), wrote))
			wrote += int64(n)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
				wait(ctx, time.Hour)
				return nil
			}
		}
	}
	return nil
}

// logLines look like a log's, so that gzip finds in them what it finds in one.
// They are of n bytes or a line more.
func logLines(n, seed int64) []byte {
	var b bytes.Buffer
	now := time.Now().Format(time.RFC3339Nano)
	for i := seed; int64(b.Len()) < n; i++ {
		fmt.Fprintf(&b, "%s level=debug request=%016x path=/api/v1/orders/%d took=%dms msg=\"cache miss, asked the database\"\n",
			now, uint64(i)*0x9e3779b97f4a7c15, i%7919, i%311)
	}
	return b.Bytes()
}

// wait tells whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func all(ctx context.Context, parts ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// processes runs n shells with the same script, and $PAYLOAD of 2 KiB.
func processes(ctx context.Context, n int, script string) error {
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			cmd := exec.CommandContext(ctx, "sh", "-c", script)
			cmd.Env = append(os.Environ(), "PAYLOAD="+strings.Repeat("session ", 2*kib/8))
			err := cmd.Run()
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was told to end
			}
			return err
		})
	}
	return g.Wait()
}

// rename of a file that is not there does nothing.
func rename(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func remove(name string) error { return os.Remove(name) }
