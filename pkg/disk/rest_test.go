//go:build linux

package disk

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// listening is a stage that tells what happens on it.
type listening struct {
	*stage
	mu    sync.Mutex
	woken []string
	err   error
	// resting are the folders that were said to be left alone.
	resting []string
}

func (l *listening) Woken(each func(string)) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, upper := range l.woken {
		each(upper)
	}
	l.woken = nil
	return time.Now(), l.err
}

func (l *listening) Rest(upper string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resting = append(l.resting, upper)
}

func (l *listening) left() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.resting)
}

func (l *listening) wake(upper string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.woken = append(l.woken, upper)
}

func (l *listening) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// asleep lets a still layer be told of.
func asleep(look func(time.Duration) (Look, error)) func(time.Duration) (Look, error) {
	return func(since time.Duration) (Look, error) {
		l, err := look(since)
		l.Still = true
		return l, err
	}
}

// TestWatcherLeavesTheIdleAlone: a layer without events is seldom looked at, its
// figure is not old for that, and a leak in it is told as soon as in one that
// was looked at all the time.
func TestWatcherLeavesTheIdleAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(container("witness", "u-2", "app", "q"), asleep(still(5)))
		leak := s.add(app, asleep(holds(func(s float64) float64 { return 10 + 20*max(0, s-600) })))
		s.add(container("third", "u-3", "app", "r"), asleep(still(5)))
		o := s.options(t)
		meter := &listening{stage: s}
		o.Meter = meter
		w := watch(t, o)
		pass(60 * time.Second)
		if got := meter.left(); len(got) != 2 {
			t.Errorf("said to be left alone: %v, want two of three", got)
		}
		before := 0
		for _, c := range s.list() {
			before += s.count(c)
		}
		pass(530 * time.Second) // one is the witness of the file system: 265 looks
		after := 0
		for _, c := range s.list() {
			after += s.count(c)
		}
		if n := after - before; n < 260 || n > 290 {
			t.Errorf("%d looks in 530 s, want 265 of the witness and 4 of two that sleep", n)
		}
		for _, m := range gather(t, o.Registerer)["nodeagent_disk_measure_age_seconds"] {
			if age := m.GetGauge().GetValue(); age > 3 {
				t.Errorf("%v: %v s old, though nothing happened", labels(m), age)
			}
		}
		pass(11 * time.Second) // the leak begins
		meter.wake(leak.Layer.Upper)
		pass(12 * time.Second)
		select {
		case v := <-w.Offences():
			if v.Container.ID != app.ID {
				t.Errorf("told %+v", v)
			}
		default:
			t.Error("not told 12 s after the leak was heard of")
		}
	})
}

// TestAnotherIsTheWitness: when the container goes whose place was looked at
// for the file system's own figures, one that slept is looked at instead.
func TestAnotherIsTheWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		for _, id := range []string{"a", "b", "c"} {
			s.add(container(id, "u-"+id, "app", id), asleep(still(5)))
		}
		o := s.options(t)
		o.Meter = &listening{stage: s}
		watch(t, o)
		pass(time.Minute)
		looks := func() map[string]int {
			n := make(map[string]int)
			for _, c := range s.list() {
				n[c.ID] = s.count(c)
			}
			return n
		}
		before := looks()
		pass(20 * time.Second)
		gone := ""
		for id, n := range looks() {
			if n-before[id] >= 8 {
				gone = id
			}
		}
		if gone == "" {
			t.Fatal("none is the witness")
		}
		s.remove(gone)
		pass(5 * time.Second)
		before = looks()
		pass(20 * time.Second)
		most := 0
		for id, n := range looks() {
			most = max(most, n-before[id])
		}
		if most < 8 {
			t.Errorf("the others were looked at %d times in 20 s at the most, want 10 of a new witness", most)
		}
	})
}

// TestWatcherLooksAgainWhenNothingIsHeard: without events nothing may sleep.
func TestWatcherLooksAgainWhenNothingIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		all := []string{"a", "b", "c"}
		for _, id := range all {
			s.add(container(id, "u-"+id, "app", id), asleep(still(5)))
		}
		o := s.options(t)
		meter := &listening{stage: s}
		o.Meter = meter
		watch(t, o)
		pass(time.Minute)
		meter.fail(errors.New("input/output error"))
		pass(2 * time.Second)
		before := make(map[string]int)
		for _, c := range s.list() {
			before[c.ID] = s.count(c)
		}
		pass(time.Minute)
		for _, c := range s.list() {
			if n := s.count(c) - before[c.ID]; n < 25 {
				t.Errorf("%s was looked at %d times in a minute, want 30", c.ID, n)
			}
		}
	})
}

// TestFirstReadIsNotThePrice: what it takes to read a layer for the first time
// says nothing of the looks that follow, which cost next to nothing.
func TestFirstReadIsNotThePrice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		for i := range 100 {
			first := true
			s.add(container(fmt.Sprint(i), fmt.Sprint("u-", i), "app", fmt.Sprint(i)), func(since time.Duration) (Look, error) {
				l, err := still(5)(since)
				if first {
					first, l.Whole = false, true
					time.Sleep(40 * time.Millisecond)
				}
				return l, err
			})
		}
		watch(t, s.options(t))
		pass(12 * time.Second) // 100 first looks, three at a time: 1.4 s
		for _, c := range s.list() {
			if n := s.count(c); n < 5 {
				t.Errorf("%s was looked at %d times in 12 s, want 6", c.Pod.Name, n)
			}
		}
	})
}
