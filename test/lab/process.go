package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running process that cannot be mistaken for a later one that
// got the same pid.
type process struct {
	pid   int
	start uint64 // clock ticks after boot, field 22 of /proc/PID/stat
}

func lookProcess(pid int) (process, error) {
	start, ended, err := readStat(pid)
	if err != nil {
		return process{}, err
	}
	if ended {
		return process{}, fs.ErrNotExist
	}
	return process{pid: pid, start: start}, nil
}

func readStat(pid int) (start uint64, ended bool, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	return parseStat(string(text))
}

// parseStat reads /proc/PID/stat. The second field is the command in
// parentheses and may hold anything, so counting starts after the last one. A
// process whose first thread is a zombie has not ended while others end: until
// the last one did, its sockets are open.
func parseStat(text string) (start uint64, ended bool, err error) {
	_, rest, ok := cutLast(text, ')')
	f := strings.Fields(rest)
	if !ok || len(f) < 20 || len(f[0]) != 1 {
		return 0, false, fmt.Errorf("cannot understand the process's stat %q", text)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	othersEnd := f[17] != "0" && f[17] != "1"
	return start, (f[0] == "Z" || f[0] == "X") && !othersEnd, err
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (p process) alive() bool {
	now, err := lookProcess(p.pid)
	return err == nil && now == p
}

// end asks the process to end and kills it when it has not after patience.
func (p process) end(ctx context.Context, patience time.Duration) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot end process %d: %w", p.pid, err)
	}
	soft, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if waitFor(soft, 20*time.Millisecond, func() bool { return !p.alive() }) {
		return nil
	}
	if p.alive() {
		killPid(p.pid)
	}
	if !waitFor(ctx, 20*time.Millisecond, func() bool { return !p.alive() }) {
		return fmt.Errorf("process %d is still there after SIGKILL", p.pid)
	}
	return nil
}

func killPid(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

// waitFor asks again and again whether what is awaited is true.
func waitFor(ctx context.Context, every time.Duration, what func() bool) bool {
	t := time.NewTicker(every)
	defer t.Stop()
	for !what() {
		select {
		case <-ctx.Done():
			return what()
		case <-t.C:
		}
	}
	return true
}

func isNoDevice(err error) bool { return errors.Is(err, syscall.ENODEV) }

// recordProcess writes a process down under name, in one step.
func recordProcess(dir, name string, p process) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot record the pid of %s: %w", name, err)
	}
	text := fmt.Sprintf("%d %d\n", p.pid, p.start)
	return writeFileAtomic(filepath.Join(dir, name), []byte(text))
}

// recordedProcess returns the living process recorded under name.
func recordedProcess(dir, name string) (process, bool) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return process{}, false
	}
	var p process
	if _, err := fmt.Sscan(string(text), &p.pid, &p.start); err != nil {
		return process{}, false
	}
	return p, p.alive()
}

func writeFileAtomic(path string, text []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, text, 0o644); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// daemon is a program that outlives the lab command that starts it.
type daemon struct {
	name   string
	args   []string
	log    string
	cgroup string // folder in the version 2 tree
}

// startDaemon starts d in its own session and straight in its cgroup, so that
// there is no moment in which it runs and cannot be found.
func startDaemon(pids string, d daemon) (process, error) {
	log, err := openLog(d.log)
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	group, err := os.Open(d.cgroup)
	if err != nil {
		return process{}, fmt.Errorf("cannot start %s: %w", d.name, err)
	}
	defer group.Close()
	cmd := exec.Command(d.args[0], d.args[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("cannot start %s: %w", d.name, err)
	}
	p, err := lookProcess(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // no zombie while this command lives
	if err != nil {
		return process{}, fmt.Errorf("%s ended at once; the end of %s:\n%s", d.name, d.log, lastLines(d.log, 10))
	}
	return p, recordProcess(pids, d.name, p)
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the log folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	return f, nil
}
