package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// Record tells what became of a launch.
type Record struct {
	Enforced    []string
	NotEnforced []string                 // asked for, or the profile's, and not kept (only with BestEffort), or absent from this kernel
	Phases      map[string]time.Duration // of the launcher: prepare, cgroup; beside it of the keeper: boot, view, exec, tell; and all: from the call until the launcher knows that the program runs
}

// Exit is how a task ended.
type Exit struct {
	Code      int    // -1: by a signal, or not known
	Signal    int    // 0: none
	OOMKilled bool   // memory ran out, its own limit or the node's
	Reason    string // "disk": it held more than it may; "keeper": see Lost
	Lost      bool   // its keeper was killed, and the kernel ended the task with it
	At        time.Time
	Dropped   int64 // bytes of output that could not be written
}

// kept is record.json: what the next agent has to know.
type kept struct {
	ID       string
	BootID   string
	CgroupID uint64
	Dir      string
	UID      uint32
	OwnPids  bool
	Record   Record
}

const recordFile = "record.json"

func (k kept) write(state string) error {
	raw, err := json.Marshal(k)
	if err != nil {
		return err
	}
	at := filepath.Join(state, recordFile)
	if err := os.WriteFile(at+".new", raw, 0o600); err != nil {
		return fmt.Errorf("cannot keep the launch's record: %w", err)
	}
	return os.Rename(at+".new", at)
}

func readKept(state string) (kept, error) {
	var k kept
	raw, err := os.ReadFile(filepath.Join(state, recordFile))
	if err == nil {
		err = json.Unmarshal(raw, &k)
	}
	return k, err
}

// told reads what the keeper wrote; nil if it did not.
func told(state, file string) (plan.Told, error) {
	raw, err := os.ReadFile(filepath.Join(state, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return plan.Parse(raw), nil
}

// exitOf reads an end: t is nil when the keeper could not tell it.
func exitOf(t plan.Told, oomKills *int64) Exit {
	if t == nil {
		return Exit{Code: -1, Lost: true, Reason: "keeper", At: time.Now()}
	}
	e := Exit{
		Code: int(t.Int(plan.KeyCode)), Signal: int(t.Int(plan.KeySignal)), At: time.Unix(0, t.Int(plan.KeyAt)),
		Reason: t[plan.KeyReason], Dropped: t.Int(plan.KeyDropped),
	}
	const kill = 9
	if e.Reason == "oom" || (e.Signal == kill && e.Reason == "" && oomKills != nil && *oomKills > 0) {
		e.OOMKilled, e.Reason = true, ""
	}
	return e
}
