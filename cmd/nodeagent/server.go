package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is one thing that has to hold before the agent is ready. It
// returns nil, or why it does not hold.
type readiness struct {
	name  string
	check func() error
}

// route is a further path that is served.
type route struct {
	path  string
	serve http.HandlerFunc
}

// maxScrapes bounds the answers of /metrics that are made at once. Any pod may
// ask, and each answer is held in memory; who comes too much is told 503.
const maxScrapes = 4

// newHandler serves /metrics, /healthz (the process answers) and /readyz (it
// sees its containers and has measured them). One collector that fails costs
// its own series, not the whole answer. more are further paths to read.
func newHandler(reg *prometheus.Registry, ready []readiness, log *slog.Logger, more ...route) http.Handler {
	mux := http.NewServeMux()
	for _, r := range more {
		mux.HandleFunc("GET "+r.path, r.serve)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry: reg, ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var errs []error
		for _, r := range ready {
			if err := r.check(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
			}
		}
		if err := errors.Join(errs...); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serve answers on l until ctx ends, then lets requests in progress finish.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, MaxHeaderBytes: 16 << 10,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("cannot serve metrics on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		return fmt.Errorf("cannot finish answering on %s: %w", l.Addr(), err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
