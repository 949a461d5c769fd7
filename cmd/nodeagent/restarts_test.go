package main

import (
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

func TestSettled(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name    string
		outcome restart.Outcome
		until   time.Duration // how long the answer holds
	}{
		{"created is looked at again", restart.Outcome{Kind: restart.Created}, 0},
		{"joined is looked at again", restart.Outcome{Kind: restart.Joined}, 0},
		{"a long cooldown holds for five minutes", restart.Outcome{Kind: restart.CoolingDown, Until: now.Add(time.Hour)}, settledFor},
		{"a short cooldown holds to its end", restart.Outcome{Kind: restart.CoolingDown, Until: now.Add(time.Minute)}, time.Minute},
		{"excluded holds for five minutes", restart.Outcome{Kind: restart.Excluded}, settledFor},
		{"ineffective holds for five minutes", restart.Outcome{Kind: restart.Ineffective}, settledFor},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settled{}
			s.note("u-1", c.outcome, now)
			if got := s.holds("u-1", now.Add(c.until-time.Second)); got != (c.until > 0) {
				t.Errorf("holds %v before %v", got, c.until)
			}
			if s.holds("u-1", now.Add(c.until)) {
				t.Errorf("still holds after %v", c.until)
			}
			if len(s) > 0 {
				t.Errorf("what is over is still remembered: %v", s)
			}
			if s.holds("u-2", now) {
				t.Error("holds for another pod")
			}
		})
	}
}

func TestMayTaint(t *testing.T) {
	for file, want := range map[string]bool{
		"":                                   true,
		"restart: {mode: approve}":           true,
		"restart: {mode: observe}":           false,
		"restart: {taintFillingNode: false}": false,
	} {
		cfg, err := parseConfig([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		if got := mayTaint(cfg.Restart); got != want {
			t.Errorf("%q: %v, want %v", file, got, want)
		}
	}
}
