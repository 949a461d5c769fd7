package plan

import (
	"strconv"
	"strings"
)

// Told is what a keeper says in a few lines, one "key value" each: of the
// launch (StartedFile and Status) and of the end (ExitFile).
type Told map[string]string

// Keys of Told.
const (
	KeyError   = "error"  // the launch failed: why
	KeyKeeper  = "keeper" // pid on the host
	KeyTask    = "task"   // pid on the host
	KeyStart   = "start"  // the keeper's start time, in clock ticks since boot
	KeyTStart  = "tstart" // the task's
	KeyAt      = "at"     // when, in nanoseconds since 1970
	KeyView    = "view"   // nanoseconds: namespaces and mounts
	KeyExec    = "exec"   // nanoseconds: clone until execve succeeded
	KeyMain    = "main"   // when the keeper began, in nanoseconds since 1970
	KeyCode    = "code"
	KeySignal  = "signal"
	KeyReason  = "reason"  // why the keeper ended the task: "disk", "oom"
	KeyDropped = "dropped" // bytes of output that could not be written
)

// Lines is how it is written.
func (t Told) Lines() []byte {
	var b []byte
	for k, v := range t {
		b = append(b, k...)
		b = append(b, ' ')
		b = append(b, strings.ReplaceAll(v, "\n", " ")...)
		b = append(b, '\n')
	}
	return b
}

// Parse reads Lines.
func Parse(b []byte) Told {
	t := Told{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
			t[k] = v
		}
	}
	return t
}

// Int is a number of it, 0 if missing.
func (t Told) Int(key string) int64 {
	n, _ := strconv.ParseInt(t[key], 10, 64)
	return n
}
