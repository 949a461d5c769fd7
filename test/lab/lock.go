package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// lock takes the lab's lock called name and waits while another process has
// it. It is an abstract socket: the kernel drops it with its process, so a
// killed lab blocks nobody, and it leaves no file behind.
func lock(ctx context.Context, name string, p *progress) (unlock func(), err error) {
	said := false
	for {
		l, err := net.Listen("unix", "@nodeagent-lab/"+name)
		if err == nil {
			if said {
				p.doing("")
			}
			return func() { l.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("cannot take the lock %q: %w", name, err)
		}
		p.doing("waiting for another lab command that is at work (%s)", name)
		said = true
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot take the lock %q: another lab command holds it: %w", name, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
