package keeper

import (
	"testing"
	"time"
)

func TestNextPause(t *testing.T) {
	const s = 5 * time.Second
	pause := s
	for _, c := range []struct {
		grew bool
		want time.Duration
	}{{true, s}, {false, 2 * s}, {false, 4 * s}, {false, 8 * s}, {false, 12 * s}, {false, 12 * s}, {true, s}} {
		if pause = nextPause(pause, s, c.grew); pause != c.want {
			t.Errorf("got %s, want %s", pause, c.want)
		}
	}
}
