package plugin

import (
	"fmt"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// The exit codes. Of several restarts the highest one counts.
const (
	ExitDone    = 0
	ExitError   = 1
	ExitRefused = 2
	ExitFailed  = 3
	ExitTimeout = 4
)

// ExitCodes is the table of them for the docs.
func ExitCodes() []string {
	return []string{
		ExitDone:    "done: every restart succeeded; with --dry-run: would be begun; with --wait=false: was asked for",
		ExitError:   "wrong usage, or the API server could not be asked, or said no",
		ExitRefused: "at least one was refused (it would not have been clean) or only observed (its mode). Nothing was touched there",
		ExitFailed:  "at least one stalled or failed, or its Restart was deleted meanwhile",
		ExitTimeout: "--timeout is over or Ctrl-C was pressed; the restart itself goes on",
	}
}

// Ended says with which code to end, and why in a line unless it was said.
type Ended struct {
	Code int
	Why  string
}

func (e *Ended) Error() string { return e.Why }

// ExitCode is the process's.
func (e *Ended) ExitCode() int { return e.Code }

// codeOf is what one Restart's end means.
func codeOf(s state) int {
	switch {
	case s.gone:
		return ExitFailed
	case !s.ended():
		return ExitTimeout
	}
	switch s.restart.Status.Phase {
	case v1alpha1.PhaseSucceeded:
		return ExitDone
	case v1alpha1.PhaseRefused, v1alpha1.PhaseObserved:
		return ExitRefused
	}
	return ExitFailed
}

// result is nil where all went well.
func result(states []state) error {
	worst, counts := ExitDone, map[int]int{}
	for _, s := range states {
		code := codeOf(s)
		counts[code]++
		worst = max(worst, code)
	}
	if worst == ExitDone {
		return nil
	}
	words := map[int]string{ExitRefused: "refused", ExitFailed: "stalled or failed", ExitTimeout: "not ended yet"}
	return &Ended{worst, fmt.Sprintf("%d of %d restarts %s", counts[worst], len(states), words[worst])}
}
