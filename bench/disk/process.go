package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the user and system time that a process has used so far, its ended
// threads included: the sum of utime and stime in /proc/PID/stat, but to the
// nanosecond instead of in ticks of 10 ms (clock_getcpuclockid(3); the number of
// another process's clock is made as the kernel's posix-timers.h does).
func cpuTime(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|cpuclockSched, &ts); err != nil {
		return 0, fmt.Errorf("cannot read the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// cpuOf is what a process uses while do runs, and how long that took.
func cpuOf(pid int, do func() error) (cpu, took time.Duration, err error) {
	before, err := cpuTime(pid)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := do(); err != nil {
		return 0, 0, err
	}
	took = time.Since(begun)
	after, err := cpuTime(pid)
	return after - before, took, err
}

// idleCPU is the share of one core that a process uses over the window, in
// percent.
func idleCPU(ctx context.Context, pid int, window time.Duration) (float64, error) {
	cpu, took, err := cpuOf(pid, func() error { return sleep(ctx, window) })
	return percent(cpu, took), err
}

func percent(cpu, took time.Duration) float64 { return 100 * cpu.Seconds() / took.Seconds() }

// resident is the memory of a process in MiB that is in RAM, its program's own
// pages included.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
	}
	m := regexp.MustCompile(`(?m)^Rss:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("cannot read the memory of process %d: %q", pid, text)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
