package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// worker is the name under which process 1 starts its child.
const worker = "vm-worker"

// IsHere tells whether this process is one of the guest's two.
func IsHere() bool { return os.Getpid() == 1 || os.Args[0] == worker }

// Main is the guest. It does not return: it ends with the machine's power.
func Main() {
	if os.Args[0] == worker {
		if err := work(); err != nil {
			fmt.Println("vm:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := first(); err != nil {
		fmt.Println("vm:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// first is process 1.
func first() error {
	plan, err := readPlan()
	if err != nil {
		return err
	}
	if plan.Systemd {
		return becomeSystemd()
	}
	return reap()
}

func readPlan() (p Plan, err error) {
	data, err := os.ReadFile(PlanFile)
	if err != nil {
		return p, fmt.Errorf("cannot read the plan: %w", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("cannot read the plan: %w", err)
	}
	return p, nil
}

// reap starts the worker and reaps all that is left to process 1 until the
// worker itself has ended. The worker cannot do it: it waits for its own
// children.
func reap() error {
	if err := unix.Mkdir("/proc", 0o555); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot make /proc: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	cmd := exec.Cmd{Path: "/proc/self/exe", Args: []string{worker}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the worker: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("cannot wait: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return fmt.Errorf("the worker ended by %v", status.Signal())
		case pid == cmd.Process.Pid:
			return nil
		}
	}
}

func work() error {
	plan, err := readPlan()
	if err != nil {
		return err
	}
	mounts := mountSystem
	if plan.Systemd {
		mounts = mountBesideSystemd
	}
	if err := mounts(); err != nil {
		return err
	}
	if err := loadModules(plan.Modules); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	tell := &teller{enc: json.NewEncoder(port)}
	err = plan.carryOut(tell)
	if err != nil {
		tell.message(Message{Kind: Failed, Text: err.Error()})
	} else {
		tell.message(Message{Kind: Done})
	}
	return errors.Join(err, tell.err, port.Close())
}

// asSystemdWould sets what else a machine with systemd has.
func asSystemdWould() error {
	if err := openCgroups(); err != nil {
		return err
	}
	// os.RemoveAll needs a descriptor a level.
	files := syscall.Rlimit{Cur: 1024, Max: 524288}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("cannot allow more open files: %w", err)
	}
	return loopbackUp()
}

func (p Plan) carryOut(tell *teller) error {
	if err := mountDisks(p.Disks); err != nil {
		return err
	}
	if !p.Systemd {
		if err := asSystemdWould(); err != nil {
			return err
		}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("cannot ask for the kernel's name: %w", err)
	}
	tell.message(Message{Kind: Up, Text: unix.ByteSliceToString(uts.Release[:])})
	for _, r := range p.Runs {
		if err := r.carryOut(tell); err != nil {
			return err
		}
	}
	return nil
}
