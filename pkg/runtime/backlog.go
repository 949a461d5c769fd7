package runtime

import "sync"

// maxBacklog bounds what is remembered one by one; beyond it a full list is
// cheaper anyway.
const maxBacklog = 512

// backlog gathers what must be looked at again. While one batch is being
// loaded the next one gathers, so a burst of events costs one look at each
// container and the stream of events is never kept waiting.
type backlog struct {
	mu   sync.Mutex
	refs map[ref]struct{}
	all  bool
	wake chan struct{} // holds one token while there is something to take
}

func newBacklog() *backlog {
	return &backlog{refs: map[ref]struct{}{}, wake: make(chan struct{}, 1)}
}

func (b *backlog) add(r reload) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.all || len(b.refs) >= maxBacklog {
		b.all = true
		clear(b.refs)
	} else if !b.all {
		b.refs[r.one] = struct{}{}
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the backlog. all stands for every container, and then refs is
// empty.
func (b *backlog) take() (refs []ref, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.refs {
		refs = append(refs, r)
	}
	all = b.all
	b.all = false
	clear(b.refs)
	return refs, all
}
