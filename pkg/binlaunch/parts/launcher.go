package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
)

// Launcher is the supervisor's Launcher.
type Launcher struct {
	Sandbox  *sandbox.Launcher
	Folder   string // holds the sandbox folders
	HostRoot string // where the host's devices are found; "": /
}

// Start implements binlaunch.Launcher.
func (l *Launcher) Start(ctx context.Context, from binlaunch.Launch) (binlaunch.Task, binlaunch.Record, error) {
	spec := sandbox.Spec{
		ID: from.ID, Dir: filepath.Join(l.Folder, from.ID), Root: from.Program.Folder, Command: from.Command,
		User: from.Shut.User, PrivateNetwork: from.Shut.Network == v1alpha1.NetworkNone,
		Profile: sandbox.Profile(from.Shut.Profile), Rlimits: rlimitsOf(from.Shut.Rlimits),
		BestEffort: from.Shut.Enforcement == v1alpha1.EnforcementBestEffort,
	}
	var err error
	if spec.Resources, err = l.resourcesOf(from.Shut.Resources); err != nil {
		return nil, binlaunch.Record{}, err
	}
	for name, value := range from.Env {
		spec.Env = append(spec.Env, name+"="+value)
	}
	for _, s := range from.Sockets {
		spec.Files, spec.FileNames = append(spec.Files, s.File), append(spec.FileNames, s.Name)
	}
	if err := os.MkdirAll(l.Folder, 0o711); err != nil {
		return nil, binlaunch.Record{}, err
	}
	t, record, err := l.Sandbox.Start(ctx, spec)
	if err != nil {
		return nil, binlaunch.Record{}, errors.Join(err, l.clear(from.ID))
	}
	return task{t}, binlaunch.Record{Enforced: record.Enforced, NotEnforced: record.NotEnforced, Phases: record.Phases}, nil
}

// clear removes the folders of a task that is no more.
func (l *Launcher) clear(id string) error {
	var errs []error
	for _, suffix := range []string{"", ".work", ".output"} {
		errs = append(errs, os.RemoveAll(filepath.Join(l.Folder, id+suffix)))
	}
	return errors.Join(errs...)
}

func (l *Launcher) resourcesOf(r v1alpha1.Resources) (sandbox.Resources, error) {
	out := sandbox.Resources{CPUs: r.CPUSet}
	if r.CPU != nil {
		out.CPU = r.CPU.MilliValue()
	}
	out.Memory, out.Disk = valueOf(r.Memory), valueOf(r.Disk)
	if r.Pids != nil {
		out.Pids = *r.Pids
	}
	for _, limit := range r.IO {
		device, err := l.deviceOf(limit.Device)
		if err != nil {
			return out, err
		}
		io := cgroup.IO{Device: device, ReadBPS: valueOf(limit.ReadBytesPerSecond), WriteBPS: valueOf(limit.WriteBytesPerSecond)}
		if n := limit.ReadOperationsPerSecond; n != nil {
			io.ReadIOPS = *n
		}
		if n := limit.WriteOperationsPerSecond; n != nil {
			io.WriteIOPS = *n
		}
		out.IO = append(out.IO, io)
	}
	return out, nil
}

func valueOf(q *resource.Quantity) int64 {
	if q == nil {
		return 0
	}
	return q.Value()
}

// deviceOf gives the numbers of a block device of the host.
func (l *Launcher) deviceOf(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return name, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(l.HostRoot, name), &st); err != nil {
		return "", fmt.Errorf("cannot limit what is read from and written to %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("cannot limit what is read from and written to %s: it is no block device", name)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

func rlimitsOf(all []v1alpha1.Rlimit) []sandbox.Rlimit {
	var out []sandbox.Rlimit
	for _, r := range all {
		limit := sandbox.Rlimit{Name: r.Name, Soft: uint64(r.Soft), Hard: uint64(r.Soft)}
		if r.Hard != nil {
			limit.Hard = uint64(*r.Hard)
		}
		out = append(out, limit)
	}
	return out
}

// Attach implements binlaunch.Launcher.
func (l *Launcher) Attach(ctx context.Context) ([]binlaunch.Task, error) {
	found, err := l.Sandbox.Attach(ctx)
	if err != nil {
		return nil, err
	}
	var all []binlaunch.Task
	known := map[string]bool{}
	for _, t := range found {
		all, known[t.ID()] = append(all, task{t}), true
	}
	return all, l.sweep(known)
}

// sweep removes the folders that the tasks of an earlier boot have left: the
// launcher's own state is in memory. Nothing is started before this.
func (l *Launcher) sweep(known map[string]bool) error {
	folders, err := os.ReadDir(l.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look for what earlier tasks left: %w", err)
	}
	for _, f := range folders {
		id := strings.TrimSuffix(strings.TrimSuffix(f.Name(), ".work"), ".output")
		if known[id] {
			continue
		}
		if err := l.clear(id); err != nil {
			return fmt.Errorf("cannot remove what a task of an earlier boot left: %w", err)
		}
	}
	return nil
}

// task is the supervisor's Task.
type task struct{ t *sandbox.Task }

func (t task) ID() string                                          { return t.t.ID() }
func (t task) Pid() int                                            { return t.t.Pid() }
func (t task) Started() time.Time                                  { return t.t.Started() }
func (t task) Stop(ctx context.Context, grace time.Duration) error { return t.t.Stop(ctx, grace) }
func (t task) Output(follow bool) (io.ReadCloser, error)           { return t.t.Output(follow) }
func (t task) Forget(ctx context.Context) error                    { return t.t.Forget(ctx) }

// Wait implements binlaunch.Task.
func (t task) Wait(ctx context.Context) (binlaunch.Exit, error) {
	e, err := t.t.Wait(ctx)
	if err != nil {
		return binlaunch.Exit{}, err
	}
	exit := binlaunch.Exit{Code: e.Code, OOMKilled: e.OOMKilled, At: e.At, Reason: reasonOf(e)}
	if e.Signal != 0 {
		exit.Code, exit.Signal = -1, unix.SignalName(unix.Signal(e.Signal))
	}
	return exit, nil
}

// reasonOf says what ended a task where that was not itself.
func reasonOf(e sandbox.Exit) string {
	switch e.Reason {
	case "disk":
		return "its sandbox folder held more than resources.disk allows"
	case "keeper":
		return "its keeper was killed; how it ended is not known"
	}
	return e.Reason
}

// Stats implements binlaunch.Task.
func (t task) Stats() (binlaunch.Stats, error) {
	s, err := t.t.Stats()
	return binlaunch.Stats{
		CPU: s.CPU, Throttled: s.Throttled, Memory: s.Memory, Pids: s.Pids, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
		OOMKills: s.OOMKills, CPUStall: s.CPUPressure, MemoryStall: s.MemPressure, IOStall: s.IOPressure,
	}, err
}
