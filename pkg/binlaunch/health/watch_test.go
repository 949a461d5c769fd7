package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type answers struct {
	calls int
	says  func(call int) error
}

func (a *answers) Probe(context.Context) error { a.calls++; return a.says(a.calls) }

// The first success is seen soon, then probes come every interval, and three
// failures in a row end it.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("refused")
		probe := &answers{says: func(call int) error {
			if call <= 4 || call > 6 {
				return down
			}
			return nil
		}}
		start := time.Now()
		type told struct {
			at time.Duration
			v  Verdict
		}
		var got []told
		Checks{Health: probe, Policy: Policy{GracePeriod: 5 * time.Minute, Interval: time.Minute, Timeout: time.Second, MaxFailures: 3}}.
			Watch(t.Context(), start, false, func(r Report) { got = append(got, told{time.Since(start), r.Verdict}) })
		// 0, 50, 150, 350 ms fail; 750 ms passes; then every minute.
		want := []told{
			{0, Ignored}, {50 * time.Millisecond, Ignored}, {150 * time.Millisecond, Ignored}, {350 * time.Millisecond, Ignored},
			{750 * time.Millisecond, Passed},
			{750*time.Millisecond + 2*time.Minute, Failing}, {750*time.Millisecond + 3*time.Minute, Failing}, {750*time.Millisecond + 4*time.Minute, GiveUp},
		}
		if len(got) != len(want) {
			t.Fatalf("told %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("told %v, want %v", got[i], want[i])
			}
		}
	})
}

// Readiness has to pass once before anything is told as passed, and is not
// asked again; a task that was up before the agent started is not asked.
// Nothing is asked before the delay is over, counted from the start of the
// process: an agent that comes later waits for the rest of it.
func TestWatchDelay(t *testing.T) {
	for _, passed := range []time.Duration{0, 4 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			probe := &answers{says: func(int) error { return nil }}
			began := time.Now()
			Checks{Health: probe, Policy: Policy{Delay: 15 * time.Second, Interval: time.Minute, Timeout: time.Second, MaxFailures: 3}}.
				Watch(ctx, began.Add(-passed), false, func(r Report) {
					if took := time.Since(began); took != max(0, 15*time.Second-passed) || r.Verdict != Passed {
						t.Errorf("%v after %s, started %s before", r.Verdict, took, passed)
					}
					cancel()
				})
			if probe.calls != 1 {
				t.Errorf("asked %d times", probe.calls)
			}
		})
	}
}

func TestWatchReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := &answers{says: func(call int) error {
			if call < 3 {
				return errors.New("warming up")
			}
			return nil
		}}
		var got []Report
		c := Checks{Readiness: ready, ReadinessInterval: 30 * time.Second, ReadinessTimeout: 10 * time.Second}
		c.Watch(t.Context(), time.Now(), false, func(r Report) { got = append(got, r) })
		if len(got) != 3 || got[0].Verdict != Ignored || got[0].Reason != "not ready: warming up" || got[2].Verdict != Passed {
			t.Errorf("told %v", got)
		}
		c.Watch(t.Context(), time.Now(), true, func(Report) {})
		if ready.calls != 3 {
			t.Errorf("asked %d times, want 3", ready.calls)
		}
	})
}

func target(t *testing.T, url string) Target {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(url, "https://"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return Target{Hosts: []string{"127.0.0.1"}, Port: n, Dial: (&net.Dialer{}).DialContext}
}

func TestHTTPStatus(t *testing.T) {
	var status atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Location", "http://192.0.2.1/") // never asked
		w.WriteHeader(http.StatusEarlyHints)            // read past
		w.WriteHeader(int(status.Load()))
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	for _, tt := range []struct {
		status, most int
		ok           bool
	}{
		{200, 399, true}, {204, 399, true}, {302, 399, true}, {404, 399, false}, {500, 399, false}, {503, 299, false}, {302, 299, false}, {200, 299, true},
	} {
		status.Store(int64(tt.status))
		for _, p := range []HTTP{
			{Target: target(t, plain.URL), Path: "/health", Most: tt.most},
			{Target: target(t, secure.URL), Path: "/health", Most: tt.most, TLS: true},
		} {
			if err := p.Probe(t.Context()); (err == nil) != tt.ok {
				t.Errorf("status %d, at most %d, TLS %v: %v", tt.status, tt.most, p.TLS, err)
			}
		}
	}
}

func TestProbeTimeout(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := (HTTP{Target: target(t, "http://"+hung.Addr().String()), Path: "/", Most: 399}).Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
	if err := (TCP{Target: target(t, "http://"+hung.Addr().String())}).Probe(t.Context()); err != nil {
		t.Errorf("it takes connections: %v", err)
	}
	_ = hung.Close()
	if err := (TCP{Target: target(t, "http://"+hung.Addr().String())}).Probe(t.Context()); err == nil {
		t.Error("nobody listens, and the probe passes")
	}
}

// An answer by the old task is no answer; the probe is made again at once.
func TestProbeMine(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	tg := target(t, srv.URL)
	calls := 0
	tg.Mine = func(net.Conn) error {
		if calls++; calls < 3 {
			return ErrOther
		}
		return nil
	}
	if err := (HTTP{Target: tg, Path: "/", Most: 399}).Probe(t.Context()); err != nil || calls != 3 {
		t.Errorf("%v after %d connections", err, calls)
	}
	calls = 0
	if err := (TCP{Target: tg}).Probe(t.Context()); err != nil || calls != 3 {
		t.Errorf("%v after %d connections", err, calls)
	}
	tg.Mine = func(net.Conn) error { return ErrOther }
	if err := (HTTP{Target: tg, Path: "/", Most: 399}).Probe(t.Context()); !errors.Is(err, ErrOther) {
		t.Errorf("only the old one answers: %v", err)
	}
}

func TestExec(t *testing.T) {
	for _, tt := range []struct {
		code int
		err  error
		want string
	}{
		{0, nil, ""}, {2, nil, `the check ended with 2: "disk is gone\n"`}, {0, errors.New("no such file"), "cannot run the check: no such file"},
	} {
		err := Exec{Run: func(context.Context) (int, string, error) { return tt.code, "disk is gone\n", tt.err }}.Probe(t.Context())
		if reason(err) != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}
