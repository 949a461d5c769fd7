package binlaunch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestFetchPause(t *testing.T) {
	for _, tt := range []struct {
		n             int
		longest, want time.Duration
	}{
		{0, longestFetchPause, 5 * time.Second}, {1, longestFetchPause, 5 * time.Second}, {2, longestFetchPause, 10 * time.Second},
		{6, longestFetchPause, 160 * time.Second}, {7, longestFetchPause, 5 * time.Minute}, {1000, longestFetchPause, 5 * time.Minute},
		{7, longestWrongPause, 320 * time.Second}, {1000, longestWrongPause, time.Hour},
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := fetchPause(tt.n, tt.longest)
			seen[got] = true
			if got > tt.want || got <= tt.want*3/4 {
				t.Errorf("fetchPause(%d) = %s, want at most a quarter less than %s", tt.n, got, tt.want)
			}
		}
		if len(seen) < 50 {
			t.Errorf("fetchPause(%d) has %d values of a hundred: all nodes come at once", tt.n, len(seen))
		}
	}
}

// shop is a fetcher that has a program or says why not, and a launcher whose
// processes run until they are stopped. It plays by the clock of the test.
type shop struct {
	mu    sync.Mutex
	lacks map[string]error // by URL
	asked []time.Time
	runs  map[string]*still
}

type still struct {
	shop  *shop
	id    string
	start time.Time
	once  sync.Once
	end   chan struct{}
}

func (s *shop) Get(_ context.Context, _ string, a []v1alpha1.Artifact, _ []string, _ func(done, total int64)) (Program, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	return Program{Digest: "sha256:" + a[0].URL}, s.lacks[a[0].URL]
}
func (s *shop) Release(Program, string)       {}
func (s *shop) Sweep(func(string) bool) error { return nil }

func (s *shop) set(url string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacks[url] = err
}

// tries are the pauses between the fetches so far.
func (s *shop) tries() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for i := range s.asked[1:] {
		all = append(all, s.asked[i+1].Sub(s.asked[i]))
	}
	return all
}

func (s *shop) Attach(context.Context) ([]Task, error) {
	var all []Task
	for _, x := range s.runs {
		all = append(all, x)
	}
	return all, nil
}

func (s *shop) Start(_ context.Context, l Launch) (Task, Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &still{shop: s, id: l.ID, start: time.Now(), end: make(chan struct{})}
	s.runs[l.ID] = x
	return x, Record{}, nil
}

func (x *still) ID() string                         { return x.id }
func (x *still) Pid() int                           { return 1 }
func (x *still) Started() time.Time                 { return x.start }
func (x *still) Stats() (Stats, error)              { return Stats{}, nil }
func (x *still) Output(bool) (io.ReadCloser, error) { return nil, io.EOF }

func (x *still) Forget(context.Context) error {
	x.shop.mu.Lock()
	defer x.shop.mu.Unlock()
	delete(x.shop.runs, x.id)
	return nil
}

func (x *still) Stop(context.Context, time.Duration) error {
	x.once.Do(func() { close(x.end) })
	return nil
}

func (x *still) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-x.end:
		return Exit{At: time.Now()}, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// play runs a supervisor in a bubble, where a time that is waited for is over at
// once. The next agent of the same folder and shop goes on where it ended.
func (s *shop) play(t *testing.T, folder string, story func(a *Supervisor)) {
	t.Helper()
	a := New(Options{Folder: folder, Fetcher: s, Launcher: s, Proc: "/proc", Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = a.Run(ctx) })
	synctest.Wait()
	story(a)
	cancel()
	done.Wait()
}

func status(t *testing.T, a *Supervisor) v1alpha1.BinaryInstanceStatus {
	t.Helper()
	synctest.Wait()
	i, ok := a.Instance("job")
	if !ok {
		t.Fatal("there is no job")
	}
	return i.Status
}

// misses are the fetches in a row that failed, as the metric has them.
func misses(a *Supervisor) int {
	synctest.Wait()
	i, _ := a.Instance("job")
	return i.Misses
}

func from(url string, generation int64) *v1alpha1.Binary {
	b := script("job", "run")
	b.Spec.Fetch[0].URL, b.Generation = url, generation
	return b
}

func want(a *Supervisor, b *v1alpha1.Binary) { a.Want("test", []Wanted{{Binary: b, Admitted: true}}) }

// What is not there is told, and asked for again, ever more rarely: also by the
// next agent. Once it is there it runs, without anybody doing anything.
func TestFetchedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		longest time.Duration
	}{
		"not there":       {errors.New("cannot fetch /x: the server answers 404 Not Found"), 5 * time.Minute},
		"the wrong thing": {&WrongError{errors.New("cannot fetch /x: its sha256 is another")}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := &shop{lacks: map[string]error{"/x": tt.err}, runs: map[string]*still{}}
				s.play(t, folder, func(a *Supervisor) {
					want(a, from("/x", 1))
					got := status(t, a)
					if got.State != v1alpha1.StateBackingOff || !strings.HasPrefix(got.Message, tt.err.Error()+"; fetched again in ") || got.Restarts != 0 {
						t.Errorf("status %+v", got)
					}
					time.Sleep(24 * time.Hour)
				})
				pauses := s.tries()
				s.play(t, folder, func(a *Supervisor) {
					want(a, from("/x", 1))
					if n := misses(a); n < len(pauses) {
						t.Errorf("%d fetches failed, told are %d", len(pauses)+1, n)
					}
				})
				for i, p := range pauses {
					if about := fetchCeiling(i+1, tt.longest); p > about || p <= about*3/4 {
						t.Errorf("pause %d is %s, about %s is wanted", i+1, p, about)
					}
				}
				s.play(t, folder, func(a *Supervisor) {
					want(a, from("/x", 1))
					synctest.Wait()
					s.set("/x", nil)
					began := time.Now()
					for status(t, a).State != v1alpha1.StateHealthy && time.Since(began) < 2*time.Hour {
						time.Sleep(time.Second)
					}
					if took := time.Since(began); took > tt.longest+time.Second || took < tt.longest/2 {
						t.Errorf("it runs after %s", took)
					}
					if got := status(t, a); got.Message != "" || got.Restarts != 0 || misses(a) != 0 {
						t.Errorf("status %+v, %d misses", got, misses(a))
					}
				})
			})
		})
	}
}

func fetchCeiling(n int, longest time.Duration) time.Duration {
	return min(5*time.Second<<min(n-1, 20), longest)
}

// What can never be used as it is asked for is not asked for again.
func TestRefusedIsFinal(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &shop{lacks: map[string]error{"/x": &RefusedError{errors.New("it leads out")}}, runs: map[string]*still{}}
		s.play(t, folder, func(a *Supervisor) {
			want(a, from("/x", 1))
			time.Sleep(24 * time.Hour)
			if got := status(t, a); got.State != v1alpha1.StateFailed || got.Message != "it leads out" || len(s.asked) != 1 {
				t.Errorf("asked for %d times: %+v", len(s.asked), got)
			}
		})
	})
}

// An update to what is not there yet: the old one runs on, the new one is asked
// for until the update's deadline and not given up before.
func TestUpdateToWhatIsNotThere(t *testing.T) {
	missing := errors.New("the server answers 404 Not Found")
	for _, tt := range []struct {
		name    string
		inPlace bool
		uploads time.Duration
		agents  bool // the agent is exchanged meanwhile
	}{
		{"uploaded in time", false, 5 * time.Minute, false},
		{"uploaded in time, in place", true, 5 * time.Minute, false},
		{"uploaded in time, another agent", false, 5 * time.Minute, true},
		{"uploaded a minute before the deadline", false, 8 * time.Minute, false},
		{"uploaded a minute before the deadline, in place", true, 8 * time.Minute, false},
		{"too late", false, 0, false},
		{"too late, in place", true, 0, false},
		{"too late, another agent", false, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := &shop{lacks: map[string]error{"/new": missing}, runs: map[string]*still{}}
				b := func(url string, generation int64) *v1alpha1.Binary {
					b := from(url, generation)
					if tt.inPlace {
						// Nobody listens there, not even for a moment as other tests do.
						b.Spec.Ports = []v1alpha1.Port{{Name: "http", Port: 1}}
					}
					return b
				}
				var began time.Time
				judge := func(a *Supervisor) {
					if got := status(t, a); got.State != v1alpha1.StateHealthy || got.Next == nil || misses(a) == 0 || !strings.Contains(got.Next.Message, "404 Not Found; fetched again in ") {
						t.Errorf("status %+v, next %+v, %d misses", got, got.Next, misses(a))
					}
					if tt.uploads > 0 {
						time.Sleep(tt.uploads)
						s.set("/new", nil)
						time.Sleep(5 * time.Minute)
						if got := status(t, a); got.RunningGeneration != 2 || got.Next != nil || got.RejectedGeneration != 0 {
							t.Errorf("status %+v", got)
						}
						return
					}
					time.Sleep(time.Until(began.Add(10*time.Minute - time.Second)))
					if got := status(t, a); got.Next == nil {
						t.Errorf("given up early: %+v", got)
					}
					time.Sleep(2 * time.Second)
					if got := status(t, a); got.RunningGeneration != 1 || got.Next != nil || got.RejectedGeneration != 2 || !strings.HasSuffix(got.Message, fmt.Sprint(missing)) {
						t.Errorf("status %+v", got)
					}
				}
				s.play(t, folder, func(a *Supervisor) {
					want(a, b("/old", 1))
					time.Sleep(time.Minute)
					began = time.Now()
					want(a, b("/new", 2))
					time.Sleep(time.Minute)
					if !tt.agents {
						judge(a)
					}
				})
				if tt.agents {
					s.play(t, folder, func(a *Supervisor) {
						want(a, b("/new", 2))
						time.Sleep(time.Minute)
						judge(a)
					})
				}
			})
		})
	}
}
