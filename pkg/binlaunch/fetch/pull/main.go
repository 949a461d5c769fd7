package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
)

// Name is the process's own: a program that hosts it calls Main when its
// os.Args[0] is Name, and nothing else before.
const Name = "nodeagent-pull"

// Main is the confined process, and returns its exit code. What went wrong
// with an artifact is told in a Message; the code is 0 then, too. Its one
// argument bounds its memory, in bytes.
func Main() int {
	c, err := Confine(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot confine itself: %v\n", err)
		return 1
	}
	dec := json.NewDecoder(os.Stdin)
	var job Job
	if err := dec.Decode(&job); err != nil {
		fmt.Fprintf(os.Stderr, "cannot read the job: %v\n", err)
		return 1
	}
	go func() {
		// Standard input ends with the parent, however that ends.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	var mu sync.Mutex
	enc := json.NewEncoder(os.Stdout)
	Run(context.Background(), job, func(m Message) {
		mu.Lock()
		defer mu.Unlock()
		if enc.Encode(m) != nil {
			os.Exit(2) // nobody listens
		}
	}, c)
	return 0
}

// Run works on a job and says what comes of it, Done or a Failure last. Say
// may be called by several at once.
func Run(ctx context.Context, job Job, say func(Message), c Confinement) {
	say(Message{Confined: &c})
	if f := run(ctx, job, say); f != nil {
		say(Message{Failure: f})
		return
	}
	say(Message{Done: true})
}

func run(ctx context.Context, job Job, say func(Message)) *Failure {
	client, err := newClient(job)
	if err != nil {
		return failure(0, fault{Refused, err})
	}
	defer client.CloseIdleConnections()
	p := &puller{job: job, client: client, start: time.Now(), say: say}
	if !job.Probe {
		if p.tree, err = unpack.NewTree(job.Dest, job.Limits.Unpack); err != nil {
			return failure(0, err)
		}
		defer p.tree.Close()
	}
	if f := p.all(ctx); f != nil {
		return f
	}
	if job.Probe {
		return nil
	}
	files := p.tree.Files()
	for i := range files {
		say(Message{File: &files[i]})
	}
	return nil
}

// all works on the items, several at once. The first failure ends the others.
func (p *puller) all(ctx context.Context) *Failure {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, p.job.Limits.Parallel))
	for i := range p.job.Items {
		g.Go(func() error {
			rep, err := p.item(ctx, i)
			if err != nil {
				return &itemError{i, err}
			}
			p.say(Message{Report: &rep})
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		return nil
	}
	var at *itemError
	errors.As(err, &at)
	return failure(at.item, at.err)
}

type itemError struct {
	item int
	err  error
}

func (e *itemError) Error() string { return e.err.Error() }

func (p *puller) item(ctx context.Context, i int) (Report, error) {
	if p.job.Probe {
		return p.probe(ctx, i)
	}
	var sig []byte
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		sig, err = p.signature(ctx, i)
		return err
	})
	var rep Report
	g.Go(func() (err error) {
		rep, err = p.pull(ctx, i)
		return err
	})
	err := g.Wait()
	rep.Signature = sig
	return rep, err
}
