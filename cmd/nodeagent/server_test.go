package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// blocked is a collector that does not answer until it is let go.
type blocked struct{ entered, release chan struct{} }

func (b blocked) Describe(ch chan<- *prometheus.Desc) {
	ch <- prometheus.NewDesc("blocked", "It waits.", nil, nil)
}

func (b blocked) Collect(chan<- prometheus.Metric) {
	b.entered <- struct{}{}
	<-b.release
}

// Whoever asks for metrics again and again costs the agent no memory without
// bound, and does not keep the kubelet's probes from being answered.
func TestScrapesAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := blocked{entered: make(chan struct{}), release: make(chan struct{})}
	reg.MustRegister(b)
	h := newHandler(reg, nil, slog.New(slog.DiscardHandler))
	get := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	codes := make(chan int)
	for range maxScrapes {
		go func() { codes <- get("/metrics") }()
		<-b.entered
	}
	if code := get("/metrics"); code != http.StatusServiceUnavailable {
		t.Errorf("one scrape too many: %d, want 503", code)
	}
	if code := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz meanwhile: %d", code)
	}
	close(b.release)
	for range maxScrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a scrape: %d", code)
		}
	}
}
