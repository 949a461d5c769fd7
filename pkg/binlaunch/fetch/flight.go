package fetch

import (
	"context"
	"sync"
)

// flights lets calls for the same request share one fetch. It ends when its
// last caller leaves, not when the first one does, which is why it is not
// golang.org/x/sync/singleflight.
type flights struct {
	mu  sync.Mutex
	now map[string]*flight
}

type flight struct {
	cancel  context.CancelFunc
	done    chan struct{}
	callers map[*func(Progress)]bool
	entry   Entry
	result  Result
	err     error
}

// do runs work once for all who ask for key while it runs.
func (fs *flights) do(ctx context.Context, key string, told func(Progress),
	work func(ctx context.Context, told func(Progress)) (Entry, Result, error)) (Entry, Result, error) {
	fs.mu.Lock()
	f := fs.now[key]
	if f == nil {
		f = fs.start(ctx, key, work)
	}
	if told == nil {
		told = func(Progress) {}
	}
	f.callers[&told] = true
	fs.mu.Unlock()
	defer fs.leave(key, f, &told)
	select {
	case <-f.done:
		return f.entry, f.result, f.err
	case <-ctx.Done():
		return Entry{}, Result{}, context.Cause(ctx)
	}
}

func (fs *flights) start(ctx context.Context, key string, work func(context.Context, func(Progress)) (Entry, Result, error)) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{}), callers: map[*func(Progress)]bool{}}
	if fs.now == nil {
		fs.now = map[string]*flight{}
	}
	fs.now[key] = f
	go func() {
		defer cancel()
		f.entry, f.result, f.err = work(ctx, func(p Progress) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			for told := range f.callers {
				(*told)(p)
			}
		})
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if fs.now[key] == f {
			delete(fs.now, key)
		}
		close(f.done)
	}()
	return f
}

// leave takes a caller off; the last one ends the work and waits for it, so
// that nothing is left behind when Get returns.
func (fs *flights) leave(key string, f *flight, told *func(Progress)) {
	fs.mu.Lock()
	delete(f.callers, told)
	last := len(f.callers) == 0
	if last && fs.now[key] == f {
		delete(fs.now, key) // a call from now on begins anew
	}
	fs.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}
