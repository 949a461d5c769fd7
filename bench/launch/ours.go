package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
)

// bench is what all measurements share.
type bench struct {
	launcher *sandbox.Launcher
	options  sandbox.Options
	folder   string
	peers    []peer
	next     atomic.Int64
	mu       sync.Mutex
	phases   map[string][]time.Duration
	closers  []func() error
}

// spec is a fully isolated task with limits and a program's folder.
func (b *bench) spec(command ...string) sandbox.Spec {
	n := strconv.FormatInt(b.next.Add(1), 10)
	return sandbox.Spec{
		ID: "bench." + n, Dir: filepath.Join(b.folder, "tasks", n), Root: filepath.Join(b.folder, "program"), Command: command,
		Resources: sandbox.Resources{CPU: 1000, Memory: 64 << 20, Pids: 32, Disk: 10 << 20},
	}
}

// first starts our task and waits for its program's first byte.
func (b *bench) first(ctx context.Context) (time.Duration, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close()
	s := b.spec("sh", "-c", "echo x >&3")
	s.Files = []*os.File{write}
	begun := time.Now()
	task, record, err := b.launcher.Start(ctx, s)
	_ = write.Close()
	if err != nil {
		return 0, err
	}
	var one [1]byte
	if _, err := read.Read(one[:]); err != nil {
		return 0, fmt.Errorf("cannot read the first byte: %w", err)
	}
	took := time.Since(begun)
	b.mu.Lock()
	for name, d := range record.Phases {
		b.phases[name] = append(b.phases[name], d)
	}
	b.mu.Unlock()
	if e, err := task.Wait(ctx); err != nil || e.Code != 0 {
		return 0, errors.Join(fmt.Errorf("it ended with %+v", e), err)
	}
	return took, task.Forget(ctx)
}

// settle is how long the machine is left alone between two launches, so that what
// one leaves to be done, such as our next keeper's start, is not in the other's
// time.
const settle = 50 * time.Millisecond

// warm launches each in turn, so that the machine's moods meet all of them.
func (b *bench) warm(ctx context.Context, rounds int) ([]report.Row, error) {
	b.leaveOut(ctx)
	took := map[string][]time.Duration{}
	b.phases = map[string][]time.Duration{}
	for i := range rounds {
		if err := wait(ctx, settle); err != nil {
			return nil, err
		}
		d, err := b.first(ctx)
		if err != nil {
			return nil, err
		}
		took["nodeagent"] = append(took["nodeagent"], d)
		for _, p := range b.peers {
			// The slow ones need fewer rounds to tell the same.
			if i%p.every != 0 {
				continue
			}
			if err := wait(ctx, settle); err != nil {
				return nil, err
			}
			d, err := p.first(ctx, fmt.Sprintf("bench-%d-%d", os.Getpid(), i))
			if err != nil {
				return nil, fmt.Errorf("cannot measure %s: %w", p.name, err)
			}
			took[p.name] = append(took[p.name], d)
		}
	}
	for _, name := range []string{"prepare", "cgroup", "boot", "view", "exec", "tell", "all"} {
		fmt.Printf("phase %-10s p10 %6.2f ms  p50 %6.2f ms  p99 %6.2f ms\n", name, ms(percentile(b.phases[name], 10)), ms(percentile(b.phases[name], 50)), ms(percentile(b.phases[name], 99)))
	}
	p50, p99 := ms(percentile(took["nodeagent"], 50)), ms(percentile(took["nodeagent"], 99))
	rows := []report.Row{
		report.Alone("warm, isolated, to the first byte, p50", "ms", p50).AtMost(5),
		report.Alone("warm, isolated, to the first byte, p99", "ms", p99).Promise("< 20 ms", p99 < 20),
	}
	for _, p := range b.peers {
		peer := ms(percentile(took[p.name], 50))
		r := report.Beside("warm, isolated, to the first byte, p50", "ms", p50, p.name, peer)
		if p.name == "runc" {
			r = r.RatioAtMost(1.0 / 8)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// many launches and stops, 16 at once. The peers' shells end by themselves; of
// those slower than a bare fork and exec a tenth is started, and told as if it
// were all.
func (b *bench) many(ctx context.Context, n int) ([]report.Row, error) {
	took, err := atOnce(ctx, n, func(ctx context.Context, _ int) error {
		task, _, err := b.launcher.Start(ctx, b.spec("sleep", "3600"))
		if err != nil {
			return err
		}
		if err := task.Stop(ctx, 10*time.Second); err != nil {
			return err
		}
		return task.Forget(ctx)
	})
	if err != nil {
		return nil, err
	}
	name, most := fmt.Sprintf("%d launched and stopped, 16 at once", n), 0.003*float64(n)
	rows := []report.Row{report.Alone(name, "s", took.Seconds()).Promise(fmt.Sprintf("< %.3g s", most), took.Seconds() < most)}
	for _, p := range b.peers {
		share := 1
		if p.every > 1 {
			share = 10
		}
		peer, err := atOnce(ctx, n/share, func(ctx context.Context, i int) error {
			_, err := p.first(ctx, fmt.Sprintf("bench-%d-many-%d", os.Getpid(), i))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s, 16 at once: %w", p.name, err)
		}
		rows = append(rows, report.Beside(name, "s", took.Seconds(), p.name, float64(share)*peer.Seconds()))
	}
	return rows, nil
}

// atOnce does something n times, 16 of them at once.
func atOnce(ctx context.Context, n int, do func(ctx context.Context, i int) error) (time.Duration, error) {
	begun := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return time.Since(begun), g.Wait()
}

// resident measures what running tasks cost: the keepers' memory, the CPU of
// agent and keepers while nothing happens, the next agent's start.
func (b *bench) resident(ctx context.Context, n int, calm, idle time.Duration) ([]report.Row, error) {
	var mu sync.Mutex
	var tasks []*sandbox.Task
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for range n {
		g.Go(func() error {
			t, _, err := b.launcher.Start(gctx, b.spec("sleep", "3600"))
			if err == nil {
				mu.Lock()
				tasks = append(tasks, t)
				mu.Unlock()
			}
			return err
		})
	}
	err := g.Wait()
	defer func() {
		for _, t := range tasks {
			_ = t.Stop(ctx, time.Second)
			_ = t.Forget(ctx)
		}
	}()
	if err != nil {
		return nil, err
	}
	keepers, err := keepersOf(tasks)
	if err != nil {
		return nil, err
	}
	rss, pss, err := memoryOf(keepers)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, calm); err != nil {
		return nil, err
	}
	own, share, err := idleShares(ctx, os.Getpid(), keepers, idle)
	if err != nil {
		return nil, err
	}
	rows := []report.Row{
		report.Alone("resident per task: the keeper's RSS", "MiB", rss).AtMost(3),
		report.Alone("resident per task: the keeper's PSS, its program's pages shared among all", "MiB", pss).AtMost(3),
		report.Alone(fmt.Sprintf("launcher, idle, %d running", n), "% of a core", own).Promise("< 1% of a core", own < 1),
		report.Alone(fmt.Sprintf("launcher and all keepers together, idle, %d running", n), "% of a core", share).Promise("< 1% of a core", share < 1),
	}
	// Of all tasks only 100 are attached to: the target's number.
	for _, t := range tasks[min(100, len(tasks)):] {
		if err := errors.Join(t.Stop(ctx, time.Second), t.Forget(ctx)); err != nil {
			return nil, err
		}
	}
	tasks = tasks[:min(100, len(tasks))]
	begun := time.Now()
	again, err := sandbox.New(b.options)
	if err != nil {
		return nil, err
	}
	defer again.Close()
	found, err := again.Attach(ctx)
	took := ms(time.Since(begun))
	if err != nil || len(found) != len(tasks) {
		return nil, errors.Join(fmt.Errorf("attached to %d of %d", len(found), len(tasks)), err)
	}
	return append(rows, report.Alone(fmt.Sprintf("a new launcher attached to %d tasks", len(tasks)), "ms", took).Promise("< 1000 ms", took < 1000)), nil
}

// keepersOf finds the tasks' parents.
func keepersOf(tasks []*sandbox.Task) (pids []int, err error) {
	for _, t := range tasks {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.Pid()))
		if err != nil {
			return nil, err
		}
		_, after, _ := strings.Cut(string(raw), ") ")
		ppid, err := strconv.Atoi(strings.Fields(after)[1])
		if err != nil {
			return nil, err
		}
		pids = append(pids, ppid)
	}
	return pids, nil
}

// memoryOf gives the mean resident and proportional set size in MiB.
func memoryOf(pids []int) (rss, pss float64, err error) {
	for _, pid := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kib, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Rss:":
				rss += kib
			case "Pss:":
				pss += kib
			}
		}
	}
	n := float64(len(pids)) * 1024
	return rss / n, pss / n, nil
}

// idleShares is the CPU use of one process, and of it and the others together,
// while nothing happens, in percent of one core. The one may be who measures: to
// read what hundreds of others have used costs more than all of them rest, and is
// done outside of its time.
func idleShares(ctx context.Context, one int, others []int, span time.Duration) (own, all float64, err error) {
	before, err := usedBy(others...)
	if err != nil {
		return 0, 0, err
	}
	ownBefore, err := usedBy(one)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := wait(ctx, span); err != nil {
		return 0, 0, err
	}
	took := time.Since(begun)
	ownAfter, err := usedBy(one)
	if err != nil {
		return 0, 0, err
	}
	after, err := usedBy(others...)
	share := func(d time.Duration) float64 { return 100 * float64(d) / float64(took) }
	return share(ownAfter - ownBefore), share(ownAfter - ownBefore + after - before), err
}

// usedBy is the CPU time of all threads of the processes.
func usedBy(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		d, err := threads(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

func wait(ctx context.Context, span time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(span):
		return nil
	}
}

// threads adds what all threads of a process have used.
func threads(pid int) (sum time.Duration, err error) {
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, d := range dirs {
		raw, err := os.ReadFile(d)
		if err != nil {
			continue // the thread ended
		}
		n, _ := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64)
		sum += time.Duration(n)
	}
	return sum, nil
}

// percentile is by nearest rank: the 99th of a hundred is the second largest.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max((len(sorted)*p+99)/100, 1)-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
