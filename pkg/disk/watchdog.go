package disk

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// watchdog makes calls that the kernel may not come back from, as from a network
// file system that is away, so that whoever calls goes on. A call that does not
// come back stays behind on a goroutine of its own; while it is there no other
// of its names is made, so no more than one hangs for each.
type watchdog struct {
	patience time.Duration
	mu       sync.Mutex
	hung     map[string]bool
}

func newWatchdog(patience time.Duration) *watchdog {
	return &watchdog{patience: patience, hung: make(map[string]bool)}
}

// do calls and waits for it, with patience. The names are of what may hang. With
// an error nothing may be said of what call does: it may still do it.
func (d *watchdog) do(ctx context.Context, names []string, call func()) error {
	if name, hangs := d.hangs(names); hangs {
		return fmt.Errorf("%s does not answer", name)
	}
	done := make(chan struct{})
	go func() {
		call()
		close(done)
		d.set(names, false)
	}()
	timeout := time.NewTimer(d.patience)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	case <-timeout.C:
	}
	d.set(names, true)
	select {
	case <-done: // just now
		d.set(names, false)
		return nil
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%s does not answer within %s", names[0], d.patience)
}

func (d *watchdog) hangs(names []string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if d.hung[name] {
			return name, true
		}
	}
	return "", false
}

func (d *watchdog) set(names []string, hung bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if hung {
			d.hung[name] = true
		} else {
			delete(d.hung, name)
		}
	}
}
