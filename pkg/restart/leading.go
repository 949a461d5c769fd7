package restart

import (
	"context"
	"sync"
)

// WhenLeading has f called whenever this agent becomes the leader of all, with
// a context that ends when it no longer is; f returns then. It is for what one
// agent of the cluster does besides: call it before Run.
func (c *Controller) WhenLeading(f func(context.Context)) {
	c.whenLeading = append(c.whenLeading, f)
}

// asLeader does all that the leader does, until ctx ends.
func (c *Controller) asLeader(ctx context.Context) {
	var besides sync.WaitGroup
	defer besides.Wait()
	for _, f := range c.whenLeading {
		besides.Go(func() { f(ctx) })
	}
	c.guard(ctx)
}
