package binlaunch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// memory is what a unit has to know again after a restart of the agent.
type memory struct {
	Source             string           `json:"source,omitempty"`
	Wanted             *v1alpha1.Binary `json:"wanted,omitempty"`
	Admitted           bool             `json:"admitted,omitempty"`
	Current            *taskMemory      `json:"current,omitempty"`
	Next               *taskMemory      `json:"next,omitempty"`
	Leaving            []taskMemory     `json:"leaving,omitempty"`
	Previous           *v1alpha1.Binary `json:"previous,omitempty"`
	Rejected           string           `json:"rejected,omitempty"`
	RejectedGeneration int64            `json:"rejectedGeneration,omitempty"`
	Rejection          string           `json:"rejection,omitempty"`
	Ports              map[string]int32 `json:"ports,omitempty"`
	Pins               []string         `json:"pins,omitempty"`
}

type taskMemory struct {
	ID       string               `json:"id,omitempty"`
	PastID   string               `json:"pastID,omitempty"`
	Spec     *v1alpha1.Binary     `json:"spec"`
	State    v1alpha1.State       `json:"state"`
	Since    time.Time            `json:"since"`
	Created  time.Time            `json:"created"`
	Ports    []int32              `json:"ports,omitempty"`
	Restarts int32                `json:"restarts,omitempty"`
	Ends     int                  `json:"ends,omitempty"`
	Misses   int                  `json:"misses,omitempty"`
	OOMKills int32                `json:"oomKills,omitempty"`
	GaveUp   bool                 `json:"gaveUp,omitempty"`
	LastExit *v1alpha1.ExitStatus `json:"lastExit,omitempty"`
	Message  string               `json:"message,omitempty"`
	Digest   string               `json:"digest,omitempty"`
	Folder   string               `json:"folder,omitempty"`
	Verified []string             `json:"verified,omitempty"`
	Record   Record               `json:"record"`
}

func (u *unit) memory() memory {
	m := memory{
		Source: u.from, Wanted: u.wanted, Admitted: u.admitted, Current: remember(u.current), Next: remember(u.next), Previous: u.previous,
		Rejected: u.rejected, RejectedGeneration: u.rejectedGeneration, Rejection: u.rejection, Ports: u.ports, Pins: u.pins,
	}
	for _, t := range u.leaving {
		m.Leaving = append(m.Leaving, *remember(t))
	}
	return m
}

func remember(t *task) *taskMemory {
	if t == nil {
		return nil
	}
	m := &taskMemory{
		ID: t.id, Spec: t.spec, State: t.state, Since: t.since, Created: t.created, Ports: t.ports, Restarts: t.restarts,
		Ends: t.ends, Misses: t.misses, OOMKills: t.oomKills, GaveUp: t.gaveUp, LastExit: t.lastExit, Message: t.message, Record: t.record,
	}
	if t.past != nil {
		m.PastID = t.past.ID()
	}
	if t.program != nil {
		m.Digest, m.Folder, m.Verified = t.program.Digest, t.program.Folder, t.program.Verified
	}
	return m
}

// save writes the memory where it changed, so that it is whole after a crash at
// any moment. It is not synced: what has to survive a power cut is what is
// wanted, and the sources know that; a process does not survive one.
func (u *unit) save() {
	raw, err := json.Marshal(u.memory())
	if err == nil && bytes.Equal(raw, u.saved) {
		return
	}
	if err == nil {
		err = replaceFile(u.file(), raw)
	}
	if err != nil {
		u.log.Error("cannot write down how the binary stands; an agent that starts now may not know its task", "err", err)
		return
	}
	u.saved = raw
}

func (u *unit) unsave() error {
	if err := os.Remove(u.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	u.saved = nil
	return nil
}

func (u *unit) file() string { return filepath.Join(u.s.o.Folder, u.name+".json") }

func replaceFile(path string, text []byte) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// memories reads what all units have written down, by name. One that cannot be
// read is told and left out; its task is then one that nobody wants.
func (s *Supervisor) memories() map[string]memory {
	all := map[string]memory{}
	files, _ := filepath.Glob(filepath.Join(s.o.Folder, "*.json"))
	for _, f := range files {
		m, err := readMemory(f)
		if err != nil {
			s.log.Error("cannot read how a binary stood", "err", err)
			continue
		}
		all[strings.TrimSuffix(filepath.Base(f), ".json")] = m
	}
	return all
}

func readMemory(path string) (memory, error) {
	var m memory
	raw, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
