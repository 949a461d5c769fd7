//go:build linux

package disk

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const recordedSeries = "testdata/series"

// wanted is what the verdict on a recorded series must be. Times are seconds
// since the recording began.
type wanted struct {
	Name     string
	Is       string // what was recorded
	Offender bool
	Resource Resource // bytes if not said
	From     float64  // when the growth begins; it cannot be sure within the Sustain after it
	By       float64  // at the latest, and then to the end
	Evidence string   // the path that must be named by then, or soon after
}

func wantedSeries(t *testing.T) []wanted {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordedSeries, "want.json"))
	must(t, err)
	var all []wanted
	must(t, json.Unmarshal(text, &all))
	return all
}

// TestRecordedSeries replays what real programs wrote (test/series) and holds
// the verdicts to what they must be.
func TestRecordedSeries(t *testing.T) {
	all := wantedSeries(t)
	files, err := filepath.Glob(recordedSeries + "/*.gz")
	must(t, err)
	for _, file := range files {
		if !slices.ContainsFunc(all, func(w wanted) bool { return w.Name+".jsonl.gz" == filepath.Base(file) }) {
			t.Errorf("want.json says nothing of %s", file)
		}
	}
	for _, want := range all {
		t.Run(want.Name, func(t *testing.T) {
			p := openReplay(t, filepath.Join(recordedSeries, want.Name+".jsonl.gz"))
			must(t, p.SetPolicy(DefaultPolicy()))
			verdicts, err := replayAll(t, p)
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			want.check(t, p.Began, verdicts)
		})
	}
}

func (w wanted) check(t *testing.T, began time.Time, verdicts []Verdict) {
	t.Helper()
	if len(verdicts) < 50 {
		t.Fatalf("only %d verdicts", len(verdicts))
	}
	since, changes, named := -1.0, 0, false
	was := false
	for _, v := range verdicts {
		s := v.At.Sub(began).Seconds()
		if v.Offender != was {
			changes++
			was = v.Offender
			t.Logf("%.1f s: offender %v: %s", s, v.Offender, v.Message)
		}
		if v.Offender && since < 0 {
			since = s
		}
		if !v.Offender {
			continue
		}
		if want := cmp.Or(w.Resource, Bytes); v.Resource != want {
			t.Errorf("%.1f s: an offender by %s, want %s", s, v.Resource, want)
		}
		named = named || slices.ContainsFunc(v.Evidence, func(g Growth) bool { return g.Path == w.Evidence })
	}
	switch {
	case !w.Offender && since >= 0:
		t.Errorf("an offender at %.1f s, want never: %s", since, w.Is)
	case !w.Offender:
	case since < 0:
		t.Errorf("never an offender, want by %.0f s: %s", w.By, w.Is)
	case since < w.From+DefaultPolicy().Sustain.Seconds() || since > w.By:
		t.Errorf("an offender at %.1f s, want some seconds after %.0f s, by %.0f s: %s", since, w.From, w.By, w.Is)
	case changes != 1:
		t.Errorf("the verdict changed %d times, want it to stay: %s", changes, w.Is)
	case !named:
		t.Errorf("%s was never named", w.Evidence)
	}
}
