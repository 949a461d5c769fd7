package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// serve answers every request with this pod's name, until it is told to stop.
// Then it stays up for a while and says that it is not ready, so that every
// kube-proxy has taken it out before it refuses the first connection.
func serve(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	addr := f.String("listen", ":8080", "address")
	drain := f.Duration("drain", 5*time.Second, "how long it serves on after SIGTERM")
	rate := f.String("leak", "", "leak from the start at this rate, such as 20Mi a second")
	code := f.Int("exit-code", 0, "what it ends with when it was told to stop")
	file := f.String("leak-file", "/app/logs/debug.log", "file to leak into")
	if err := f.Parse(args); err != nil {
		return err
	}
	l := &leak{}
	if *rate != "" {
		if err := l.start(ctx, *file, *rate); err != nil {
			return err
		}
	}
	var stopping atomic.Bool
	srv := &http.Server{Addr: *addr, Handler: routes(ctx, l, &stopping), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	select {
	case err := <-failed:
		return fmt.Errorf("cannot serve on %s: %w", *addr, err)
	case <-ctx.Done():
	}
	stopping.Store(true)
	srv.SetKeepAlivesEnabled(false)
	time.Sleep(*drain)
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(end); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return stopped(*code)
}

// stopped is how serve ends that was told to: an error where its code is not 0.
func stopped(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// exitCode is an error that says what the program has to end with.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("told to stop, ends with code %d", int(c)) }

func routes(ctx context.Context, l *leak, stopping *atomic.Bool) http.Handler {
	name, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if stopping.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { stopping.Store(true) })
	mux.HandleFunc("POST /leak", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if err := l.start(ctx, q.Get("file"), q.Get("rate")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if err := l.fill(q.Get("file"), q.Get("bytes"), q.Get("then")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("DELETE /leak", func(http.ResponseWriter, *http.Request) { l.stop() })
	return mux
}
