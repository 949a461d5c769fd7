package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// bootPatience is how long a machine may take until it tells that it is up. It
// takes some 10 s; the rest is for a host that is busy.
const bootPatience = 3 * time.Minute

// consoleLines is how much of the console a failure shows.
const consoleLines = 60

// machine is a virtual machine that is emulated by QEMU, without KVM.
type machine struct {
	kernel, initramfs string
	images            []image
	memory            int64 // bytes
	cpus              int
	console           string        // file that takes what the kernel prints
	patience          time.Duration // for all runs, from when it is up
}

// image is a raw disk and the serial number by which the guest knows it.
type image struct{ file, serial string }

// run boots the machine and hands over each message of the guest until it
// powers off. It is an error if that does not come to Done.
func (m machine) run(ctx context.Context, each func(guest.Message)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	boot := time.AfterFunc(bootPatience, func() {
		cancel(fmt.Errorf("the machine did not come up in %s", bootPatience))
	})
	defer boot.Stop()
	var end *time.Timer
	done := false
	err := m.emulate(ctx, func(msg guest.Message) {
		switch msg.Kind {
		case guest.Up:
			boot.Stop()
			end = time.AfterFunc(m.patience, func() {
				cancel(fmt.Errorf("the machine hung: it did not end in %s", m.patience))
			})
		case guest.Done:
			done = true
		case guest.Failed:
			cancel(errors.New(msg.Text))
		}
		each(msg)
	})
	if end != nil {
		end.Stop()
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err == nil && !done {
		err = errors.New("the machine ended before its time")
	}
	if err != nil {
		return fmt.Errorf("%w; the last of its console:\n%s", err, lastLines(m.console, consoleLines))
	}
	return nil
}

// emulate runs QEMU to its end. The kernel kills it if this process dies,
// which holds only as long as the thread that started it lives.
func (m machine) emulate(ctx context.Context, each func(guest.Message)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	messages, port, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer messages.Close()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	cmd.ExtraFiles = []*os.File{port} // descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err = cmd.Start()
	port.Close()
	if err != nil {
		return fmt.Errorf("cannot start QEMU: %w", err)
	}
	read := readMessages(messages, each)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("QEMU ended: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return read
}

func readMessages(r io.Reader, each func(guest.Message)) error {
	for dec := json.NewDecoder(r); ; {
		var msg guest.Message
		if err := dec.Decode(&msg); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			// QEMU must not wait for a reader.
			_, _ = io.Copy(io.Discard, r)
			return fmt.Errorf("cannot understand the guest: %w", err)
		}
		each(msg)
	}
}

func (m machine) args() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.FormatInt(m.memory>>20, 10),
		"-kernel", m.kernel, "-initrd", m.initramfs,
		// Cgroup v2 alone, no time for defences, and an end at a panic.
		"-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off cgroup_no_v1=all random.trust_cpu=on",
		"-chardev", "file,id=console,path=" + m.console, "-serial", "chardev:console",
		"-chardev", "file,id=messages,path=/proc/self/fd/3",
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=messages,name=" + guest.Port,
	}
	for _, i := range m.images {
		// The disk is thrown away: nothing has to reach the host's.
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,cache=unsafe,discard=unmap,file=%s", i.serial, i.file),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", i.serial, i.serial))
	}
	return args
}

// machineModules are what a guest needs to talk to the host and to have disks.
func machineModules() []string { return []string{"virtio_pci", "virtio_console", "virtio_blk"} }

func lastLines(file string, n int) string {
	data, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return "  (none: " + err.Error() + ")"
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(data), "\r", "")), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}
