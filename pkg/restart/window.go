package restart

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Windows are the times at which automatic restarts may begin. None means at
// any time.
type Windows []window

type window struct {
	starts   cron.Schedule
	duration time.Duration
	zone     *time.Location
}

// NewWindows reads them as the configuration has them.
func NewWindows(configured []v1alpha1.RestartWindow) (Windows, error) {
	var all Windows
	for _, c := range configured {
		zone, err := time.LoadLocation(c.TimeZone)
		if err != nil {
			return nil, fmt.Errorf("cannot use the time zone of window %q: %w", c.Start, err)
		}
		starts, err := cron.ParseStandard(c.Start)
		if err != nil {
			return nil, fmt.Errorf("cannot read the start of window %q: %w", c.Start, err)
		}
		all = append(all, window{starts, c.Duration.Duration, zone})
	}
	return all, nil
}

// open tells whether one of the windows is open, and if none is, when the next
// one opens. That is zero where none ever does: on 30 February, say.
func (w Windows) open(now time.Time) (yes bool, opens time.Time) {
	if len(w) == 0 {
		return true, time.Time{}
	}
	for _, one := range w {
		here := now.In(one.zone)
		// It is open from a start until its duration is over, so a start lies
		// less than that behind.
		if start := one.starts.Next(here.Add(-one.duration)); !start.IsZero() && !start.After(here) {
			return true, time.Time{}
		}
		if next := one.starts.Next(here); opens.IsZero() || !next.IsZero() && next.Before(opens) {
			opens = next
		}
	}
	return false, opens
}
