package binlaunch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/health"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
)

// checks makes what a task is asked of its spec.
func (u *unit) checks(t *task) health.Checks {
	var c health.Checks
	if h := t.spec.Spec.Health; h != nil {
		c.Health = u.probe(t, &h.Probe, 399)
		c.Policy = health.Policy{
			GracePeriod: h.GracePeriod.Duration, Interval: h.Interval.Duration, Timeout: h.Timeout.Duration,
			MaxFailures: int(*h.MaxConsecutiveFailures),
		}
		if h.Delay != nil {
			c.Policy.Delay = h.Delay.Duration
		}
	}
	if r := t.spec.Spec.Readiness; r != nil {
		c.Readiness = u.probe(t, &r.Probe, 299)
		c.ReadinessInterval, c.ReadinessTimeout = r.Interval.Duration, r.Timeout.Duration
	}
	return c
}

func (u *unit) probe(t *task, p *v1alpha1.Probe, most int) health.Probe {
	switch {
	case p.HTTP != nil:
		return health.HTTP{Target: u.target(t, p.HTTP.Port), Path: p.HTTP.Path, TLS: p.HTTP.Scheme == "HTTPS", Most: most}
	case p.TCP != nil:
		return health.TCP{Target: u.target(t, p.TCP.Port)}
	}
	return health.Exec{Run: u.runCheck(t, p.Exec.Command)}
}

func (u *unit) target(t *task, name string) health.Target {
	i := slices.IndexFunc(t.spec.Spec.Ports, func(p v1alpha1.Port) bool { return p.Name == name })
	hosts := []string{"127.0.0.1", "::1"}
	if u.s.o.Host != "" {
		hosts = append(hosts, u.s.o.Host)
	}
	target := health.Target{Hosts: hosts, Port: int(t.ports[i]), Dial: u.s.o.Network.DialContext}
	if t.spec.Spec.Ports[i].Held {
		pid := t.proc.Pid()
		target.Mine = func(c net.Conn) error { return u.tookIt(pid, c) }
	}
	return target
}

// patienceToAccept is how long a connection may wait for somebody to take it,
// before it counts as not taken.
const patienceToAccept = 5 * time.Second

// tookIt returns nil when a process or one of its children has taken a
// connection. While only one task listens there is no need to look.
func (u *unit) tookIt(pid int, c net.Conn) error {
	if !u.shares.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(u.s.ctx, patienceToAccept)
	defer cancel()
	inode, err := u.s.o.Network.Accepted(ctx, c)
	if err != nil {
		return err
	}
	for _, p := range family(u.s.o.Proc, pid) {
		if ports.Owns(u.s.o.Proc, p, inode) {
			return nil
		}
	}
	return health.ErrOther
}

// family is a process and all its children, theirs too.
func family(proc string, pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob(filepath.Join(proc, strconv.Itoa(all[i]), "task", "*", "children"))
		for _, list := range lists {
			raw, err := os.ReadFile(list)
			if err != nil {
				continue // it has ended
			}
			for _, f := range strings.Fields(string(raw)) {
				if child, err := strconv.Atoi(f); err == nil && !slices.Contains(all, child) {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// runCheck runs a command as a small task of its own, shut in as the task is:
// a check must not be a way to run something with more rights.
func (u *unit) runCheck(t *task, args []string) func(context.Context) (int, string, error) {
	program, own, numbers := *t.program, t.spec, t.ports
	return func(ctx context.Context) (code int, output string, err error) {
		id := u.name + ".check-" + strings.ToLower(rand.Text()[:10])
		env := environment(id, u.s.o.Host, own, numbers)
		proc, _, err := u.s.o.Launcher.Start(ctx, Launch{
			ID: id, Name: u.name, Program: program, Command: command(args, env), Env: env,
			Shut: shutOf(&own.Spec),
		})
		if err != nil {
			return 0, "", err
		}
		exit, waited := proc.Wait(ctx)
		// Even when ctx is over: nothing of it may stay.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped := proc.Stop(after, 0)
		output = lastOutput(proc)
		if err := errors.Join(waited, stopped, proc.Forget(after)); err != nil {
			return 0, "", err
		}
		if exit.Signal != "" {
			return 0, "", fmt.Errorf("it ended by %s", exit.Signal)
		}
		return exit.Code, output, nil
	}
}

// lastOutput is a little of what a task wrote, for a message.
func lastOutput(t Task) string {
	out, err := t.Output(false)
	if err != nil {
		return ""
	}
	defer out.Close()
	text, _ := io.ReadAll(io.LimitReader(out, 4096))
	return string(text)
}
