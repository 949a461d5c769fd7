package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodeInitCommand is the hidden command under which the lab starts itself as a
// node's first process.
const nodeInitCommand = "node-init"

// reportFD is where the init tells up how far it is.
const reportFD = 3

// nodeSystemCgroup holds what is no pod on a node: init, containerd, shims,
// kubelet. It is a leaf beside kubepods, because a version 2 cgroup that hands
// controllers down may hold no process itself.
func nodeSystemCgroup(n int) string { return filepath.Join(nodeName(n), "system") }

// bootNode starts node n as far as its containerd, if it does not run yet.
func bootNode(ctx context.Context, p paths, bins binaries, groups cgroups, n int, disk string) error {
	if _, alive := recordedProcess(p.pids(), nodeName(n)); alive {
		return nil
	}
	// What a killed up left of it.
	if err := groups.kill(nodeName(n), 10*time.Second); err != nil {
		return err
	}
	if err := groups.makeRoot(nodeName(n)); err != nil {
		return err
	}
	for _, dir := range []string{p.node(n) + "/root", p.nodeLogs(n)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make the folders of %s: %w", nodeName(n), err)
		}
	}
	if err := makeDisk(ctx, p.nodeDisk(n), disk); err != nil {
		return err
	}
	if err := startInit(ctx, p, bins, groups, n); err != nil {
		return fmt.Errorf("cannot start %s: %w", nodeName(n), err)
	}
	return nil
}

// makeDisk makes the file that is a node's disk: sparse, so it costs what the
// node writes, and ext4 as most nodes have.
func makeDisk(ctx context.Context, path, size string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	bytes, err := parseSize(size)
	if err != nil {
		return err
	}
	temp := path + ".new"
	f, err := os.Create(temp)
	if err != nil {
		return fmt.Errorf("cannot make the node's disk: %w", err)
	}
	err = errors.Join(f.Truncate(bytes), f.Close())
	if err != nil {
		return fmt.Errorf("cannot make the node's disk: %w", err)
	}
	if err := run(ctx, "", nil, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", temp); err != nil {
		return fmt.Errorf("cannot format the node's disk: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("cannot make the node's disk: %w", err)
	}
	return nil
}

// startInit clones the init into its cgroup and its namespaces, connects the
// network and hands it its spec.
func startInit(ctx context.Context, p paths, bins binaries, groups cgroups, n int) error {
	spec, err := newNodeSpec(p, bins, n)
	if err != nil {
		return err
	}
	dir, err := groups.make(nodeSystemCgroup(n))
	if err != nil {
		return err
	}
	group, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open its cgroup: %w", err)
	}
	defer group.Close()
	log, err := openLog(filepath.Join(p.nodeLogs(n), "init.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()

	cmd := exec.Command("/proc/self/exe", nodeInitCommand)
	cmd.Args[0] = "nodeagent-lab"
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.ExtraFiles = []*os.File{reportEnd} // reportFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot clone its init: %w", err)
	}
	reportEnd.Close()
	go func() { _ = cmd.Wait() }() // no zombie while this command lives

	if err := plugIn(n, cmd.Process.Pid); err != nil {
		return errors.Join(err, stdin.Close())
	}
	if err := errors.Join(json.NewEncoder(stdin).Encode(spec), stdin.Close()); err != nil {
		return fmt.Errorf("cannot tell its init what to be: %w; its log:\n%s", err, lastLines(log.Name(), 10))
	}
	return readReport(ctx, report, log.Name())
}

// readReport waits for the init's one line: "ok", or what went wrong.
func readReport(ctx context.Context, report *os.File, log string) error {
	stop := context.AfterFunc(ctx, func() { report.Close() })
	defer stop()
	line, err := bufio.NewReader(report).ReadString('\n')
	line = strings.TrimSpace(line)
	switch {
	case line == "ok":
		return nil
	case line != "":
		return errors.New(line)
	case ctx.Err() != nil:
		return fmt.Errorf("its init does not answer: %w; its log:\n%s", ctx.Err(), lastLines(log, 10))
	}
	return fmt.Errorf("its init ended (%w); its log:\n%s", err, lastLines(log, 10))
}

// stopNode pulls the node's plug: its init is killed, and the kernel ends the
// rest of its pid namespace, mounts and network with it. The disk stays.
func stopNode(p paths, groups cgroups, n int) error {
	if proc, alive := recordedProcess(p.pids(), nodeName(n)); alive {
		killPid(proc.pid)
	}
	if err := groups.kill(nodeName(n), 20*time.Second); err != nil {
		return err
	}
	if err := waitLoopsGone(p.node(n), 20*time.Second); err != nil {
		return err
	}
	return errors.Join(unplug(n), groups.remove(nodeName(n)), os.RemoveAll(filepath.Join(p.pids(), nodeName(n))), os.RemoveAll(p.nodeSocket(n)))
}

// parseSize reads 512M, 8G or a plain number of bytes.
func parseSize(s string) (int64, error) {
	unit := int64(1)
	number := s
	for suffix, factor := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40} {
		if n, ok := strings.CutSuffix(strings.TrimSuffix(s, "i"), suffix); ok {
			number, unit = n, factor
		}
	}
	var n int64
	if _, err := fmt.Sscanf(number+"\n", "%d\n", &n); err != nil || n <= 0 {
		return 0, fmt.Errorf("cannot understand the size %q: write it as 512M or 8G", s)
	}
	if n*unit < 256<<20 {
		return 0, fmt.Errorf("a disk of %s is too small for a node: give it 256M at least", s)
	}
	return n * unit, nil
}
