package binlaunch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want time.Duration
	}{
		{0, time.Second}, {1, time.Second}, {2, 1150 * time.Millisecond}, {3, 1322500 * time.Microsecond},
		{59, time.Hour - 276*time.Second}, {60, time.Hour}, {1000, time.Hour}, {100000, time.Hour},
	} {
		got := backoff(tt.n)
		if diff := (got - tt.want).Abs(); diff > time.Second/1000 && tt.n != 59 {
			t.Errorf("backoff(%d) = %s, want %s", tt.n, got, tt.want)
		}
		if tt.n == 59 && (got >= time.Hour || got < 50*time.Minute) {
			t.Errorf("backoff(59) = %s; Marathon's table reaches the hour with the sixtieth", got)
		}
	}
}

func TestStable(t *testing.T) {
	for _, tt := range []struct {
		up   time.Duration
		ends int
		want bool
	}{
		{9 * time.Second, 0, false}, {10 * time.Second, 0, true}, {10 * time.Second, 2, false}, {12 * time.Second, 2, true},
		{time.Hour, 60, false}, {10 * time.Hour, 60, true},
	} {
		if got := stable(tt.up, tt.ends); got != tt.want {
			t.Errorf("up for %s after %d ends: stable is %v", tt.up, tt.ends, got)
		}
	}
}

// lives is a launcher whose processes run for so long, one after the other, by
// the clock of the test.
type lives struct {
	all    []time.Duration
	begun  []time.Time
	ended  []time.Time
	played chan struct{} // closed when all have run
}

type life struct {
	*lives
	id    string
	start time.Time
	end   chan struct{}
}

func (l *lives) Attach(context.Context) ([]Task, error) { return nil, nil }

func (l *lives) Start(_ context.Context, launch Launch) (Task, Record, error) {
	if len(l.begun) == len(l.all) {
		close(l.played)
		return nil, Record{}, &RefusedError{errors.New("all have run")}
	}
	x := &life{lives: l, id: launch.ID, start: time.Now(), end: make(chan struct{})}
	span := l.all[len(l.begun)]
	l.begun = append(l.begun, x.start)
	time.AfterFunc(span, func() { l.ended = append(l.ended, time.Now()); close(x.end) })
	return x, Record{}, nil
}

func (x *life) ID() string                                { return x.id }
func (x *life) Pid() int                                  { return 1 }
func (x *life) Started() time.Time                        { return x.start }
func (x *life) Stop(context.Context, time.Duration) error { <-x.end; return nil }
func (x *life) Stats() (Stats, error)                     { return Stats{}, nil }
func (x *life) Output(bool) (io.ReadCloser, error)        { return nil, io.EOF }
func (x *life) Forget(context.Context) error              { return nil }

func (x *life) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-x.end:
		return Exit{Code: 1, At: time.Now()}, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// Played: each pause is 1.15 times the one before, until a task was up for ten
// of them; then it is a second again.
func TestBackoffPlayed(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &lives{all: []time.Duration{0, 2 * time.Second, 9 * time.Second, 0, time.Minute, time.Second, 0}, played: make(chan struct{})}
		s := New(Options{Folder: folder, Fetcher: &local{held: map[string]bool{}}, Launcher: l, Proc: "/proc", Logger: slog.New(slog.DiscardHandler)})
		s.Want("test", []Wanted{{Binary: script("job", "exit 1"), Admitted: true}})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = s.Run(ctx) })
		<-l.played
		cancel()
		done.Wait()
		want := []time.Duration{time.Second, 1150 * time.Millisecond, 1322500 * time.Microsecond, 1520875 * time.Microsecond, time.Second, 1150 * time.Millisecond}
		for i, w := range want {
			if got := l.begun[i+1].Sub(l.ended[i]); (got - w).Abs() > time.Millisecond {
				t.Errorf("pause %d is %s, want %s", i+1, got, w)
			}
		}
	})
}
