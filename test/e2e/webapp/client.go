package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Tally is what the client counted, by kind of connection.
type Tally struct {
	Requests int64            `json:"requests"`
	Failures int64            `json:"failures"`
	Pods     map[string]int64 `json:"pods"`     // requests by the pod that answered
	Errors   map[string]int64 `json:"errors"`   // failures by cause
	FailedAt []time.Time      `json:"failedAt"` // when the first of them were
}

// failuresTimed is how many failures are told with their time.
const failuresTimed = 20

// counter counts from several goroutines.
type counter struct {
	mu    sync.Mutex
	tally Tally
}

func (c *counter) add(pod string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Requests++
	if err != nil {
		c.tally.Failures++
		c.tally.Errors[err.Error()]++
		if len(c.tally.FailedAt) < failuresTimed {
			c.tally.FailedAt = append(c.tally.FailedAt, time.Now())
		}
		return
	}
	c.tally.Pods[pod]++
}

func (c *counter) read() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	t.Pods, t.Errors, t.FailedAt = maps.Clone(t.Pods), maps.Clone(t.Errors), slices.Clone(t.FailedAt)
	return t
}

func newCounter() *counter {
	return &counter{tally: Tally{Pods: map[string]int64{}, Errors: map[string]int64{}}}
}

// runClient asks url in a loop, over a new connection each time and over
// kept-alive ones, and serves its counts on GET /tally. It counts from the
// first answer on, and ends by itself after the given time.
func runClient(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("client", flag.ContinueOnError)
	url := f.String("url", "", "what to ask")
	listen := f.String("listen", ":8080", "where it tells its counts")
	every := f.Duration("every", 20*time.Millisecond, "pause between two requests of a worker")
	workers := f.Int("workers", 2, "workers for each kind of connection")
	limit := f.Duration("for", 30*time.Minute, "when it ends by itself")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := untilAnswered(ctx, *url); err != nil {
		return err
	}
	counters := map[string]*counter{"new": newCounter(), "keepalive": newCounter()}
	var all sync.WaitGroup
	for kind, c := range counters {
		for range *workers {
			hc := newHTTPClient(kind == "new")
			all.Go(func() { askOn(ctx, hc, *url, *every, c) })
		}
	}
	srv := &http.Server{Addr: *listen, Handler: tallies(counters), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	err := srv.ListenAndServe()
	cancel()
	all.Wait()
	if err == http.ErrServerClosed {
		return nil
	}
	return fmt.Errorf("cannot serve on %s: %w", *listen, err)
}

// untilAnswered waits for the first answer: a kube-proxy writes a new
// Service's rules a moment after its pods are Ready, and refuses until then.
func untilAnswered(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	hc := newHTTPClient(true)
	for {
		_, err := ask(ctx, hc, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s never answered: %w", url, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func newHTTPClient(fresh bool) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: fresh}}
}

func askOn(ctx context.Context, hc *http.Client, url string, every time.Duration, c *counter) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			pod, err := ask(ctx, hc, url)
			if ctx.Err() == nil {
				c.add(pod, err)
			}
		}
	}
}

// ask is one request: it succeeded when the whole answer came with 200.
func ask(ctx context.Context, hc *http.Client, url string) (pod string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := hc.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", res.StatusCode)
	}
	return string(body), nil
}

func tallies(counters map[string]*counter) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) {
		out := map[string]Tally{}
		for kind, c := range counters {
			out[kind] = c.read()
		}
		_ = json.NewEncoder(w).Encode(out)
	})
	return mux
}
