package fetch

import (
	"context"
	"sync"
)

// flights lets calls for the same content share one fetch. It ends when its
// last caller leaves, not when the first one does, which is why it is not
// golang.org/x/sync/singleflight.
type flights struct {
	mu  sync.Mutex
	now map[string]*flight // by content
}

type flight struct {
	request string // whose sources it asks
	cancel  context.CancelFunc
	done    chan struct{}
	callers map[*func(Progress)]bool
	entry   Entry
	result  Result
	err     error
}

// do runs work once for all who ask for the same content while it runs. Who
// asks for it in other words (other URLs, say) waits for that, and then works
// itself: it finds the content in the store, or tries its own sources.
func (fs *flights) do(ctx context.Context, content, request string, told func(Progress),
	work func(ctx context.Context, told func(Progress)) (Entry, Result, error)) (Entry, Result, error) {
	if told == nil {
		told = func(Progress) {}
	}
	for {
		f := fs.join(ctx, content, request, &told, work)
		landed := false
		select {
		case <-f.done:
			landed = true
		case <-ctx.Done():
		}
		fs.leave(content, f, &told)
		switch {
		case landed && f.request == request:
			return f.entry, f.result, f.err
		case ctx.Err() != nil:
			return Entry{}, Result{}, context.Cause(ctx)
		}
	}
}

// join takes part in the flight under way, or begins one.
func (fs *flights) join(ctx context.Context, content, request string, told *func(Progress),
	work func(context.Context, func(Progress)) (Entry, Result, error)) *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.now[content]
	if f == nil {
		f = fs.start(ctx, content, request, work)
	}
	f.callers[told] = true
	return f
}

func (fs *flights) start(ctx context.Context, content, request string, work func(context.Context, func(Progress)) (Entry, Result, error)) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{request: request, cancel: cancel, done: make(chan struct{}), callers: map[*func(Progress)]bool{}}
	if fs.now == nil {
		fs.now = map[string]*flight{}
	}
	fs.now[content] = f
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
		if fs.now[content] == f {
			delete(fs.now, content)
		}
		close(f.done)
	}()
	return f
}

// leave takes a caller off; the last one ends the work and waits for it, so
// that nothing is left behind when Get returns.
func (fs *flights) leave(content string, f *flight, told *func(Progress)) {
	fs.mu.Lock()
	delete(f.callers, told)
	last := len(f.callers) == 0
	if last && fs.now[content] == f {
		delete(fs.now, content) // a call from now on begins anew
	}
	fs.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}
