package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// runNodeInit is a node's first process. It builds the node around itself,
// says so, and then does what it is told over its socket.
func runNodeInit() error {
	// A node does not end with the terminal or the command that started it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	report := os.NewFile(reportFD, "report")
	syscall.CloseOnExec(reportFD)
	node, listener, err := becomeNode()
	if err != nil {
		fmt.Fprintln(report, err)
		return err
	}
	fmt.Fprintln(report, "ok")
	report.Close()
	return node.serve(listener)
}

func becomeNode() (*supervisor, net.Listener, error) {
	spec, err := readNodeSpec(os.Stdin)
	if err != nil {
		return nil, nil, err
	}
	// The machine's /proc is still in place: it knows us by the machine's pid.
	if err := recordSelf(spec); err != nil {
		return nil, nil, err
	}
	if err := os.RemoveAll(spec.Socket); err != nil {
		return nil, nil, fmt.Errorf("cannot clear the node's socket: %w", err)
	}
	listener, err := net.Listen("unix", spec.Socket)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen for orders: %w", err)
	}
	if err := enterRoot(spec); err != nil {
		return nil, nil, err
	}
	if err := syscall.Sethostname([]byte(spec.name())); err != nil {
		return nil, nil, fmt.Errorf("cannot set the host name: %w", err)
	}
	if err := configureNodeNetwork(spec.Number); err != nil {
		return nil, nil, err
	}
	return newSupervisor(spec.Children), listener, nil
}

func recordSelf(spec nodeSpec) error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("cannot tell the init's pid: %w", err)
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return fmt.Errorf("cannot tell the init's pid: %w", err)
	}
	p, err := lookProcess(pid)
	if err != nil {
		return fmt.Errorf("cannot look at the init itself: %w", err)
	}
	return recordProcess(spec.Pids, spec.name(), p)
}
