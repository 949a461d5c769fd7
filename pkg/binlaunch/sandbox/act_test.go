package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// act is what the test binary does as a task. It prints what came of it.
func act(what string, args []string) int {
	switch what {
	case "exit":
		n, _ := strconv.Atoi(args[0])
		return n
	case "say":
		fmt.Println(strings.Join(args, " "))
	case "sleep":
		fmt.Println("pid", os.Getpid())
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "kill-self":
		_ = unix.Kill(os.Getpid(), unix.SIGSEGV)
		time.Sleep(time.Hour)
	case "look":
		look0()
	case "attack":
		attack(args)
	case "agent":
		agent(args)
	case "unit-agent":
		unitAgent(args[0], args[1], args[2])
	case "control":
		// The attacks that do no harm when they succeed.
		control(args)
	case "orphan":
		// Leaves a child behind that holds the output open.
		c := exec.Command("/proc/self/exe", "act", "stubborn")
		c.Stdout = os.Stdout
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println("child", c.Process.Pid)
	case "fork":
		started := 0
		for range 500 {
			if err := exec.Command("/proc/self/exe", "act", "sleep").Start(); err != nil {
				fmt.Println("refused", err)
				break
			}
			started++
		}
		fmt.Println("forked", started)
	case "memory":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			runtime.KeepAlive(all)
		}
	case "memory-child":
		// The child runs out of memory; its parent sleeps on.
		_ = exec.Command("/proc/self/exe", "act", "memory").Start()
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "shout":
		n, _ := strconv.ParseInt(args[0], 10, 64)
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		for i := int64(0); n > 0; i++ {
			m, _ := fmt.Fprintf(w, "%09d\n", i)
			n -= int64(m)
		}
		_ = w.Flush()
	case "fill":
		fill(args[0])
	case "listen":
		listen()
	}
	return 0
}

// look0 tells what a task sees of itself and the host.
func look0() {
	fmt.Println("uid", os.Getuid(), "gid", os.Getgid())
	wd, _ := os.Getwd()
	fmt.Println("cwd", wd)
	host, _ := os.Hostname()
	fmt.Println("hostname", host)
	fmt.Println("env", strings.Join(os.Environ(), " "))
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp:", "NSpid", "Groups"} {
			if strings.HasPrefix(line, key) {
				fmt.Println("status", strings.Join(strings.Fields(line), " "))
			}
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	fmt.Println("procs", len(procs))
	for _, p := range procs {
		fmt.Println("sees", filepath.Base(p))
	}
	roots, _ := os.ReadDir("/")
	for _, e := range roots {
		fmt.Println("root", e.Name())
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fmt.Println("fd", e.Name(), to)
	}
	err := os.WriteFile("mine", []byte("x"), 0o600)
	fmt.Println("own file", err)
}

// attack tries what a task must not be able to do; each line says how it went.
func attack(args []string) {
	tell := func(name string, err error) {
		if err == nil {
			fmt.Println("BREACH", name)
			return
		}
		fmt.Println("refused", name, err)
	}
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	write := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			_ = f.Close()
		}
		return err
	}
	for _, secret := range args {
		tell("read "+secret, read(secret))
		f, err := os.OpenFile(secret, os.O_WRONLY, 0)
		if err == nil {
			_ = f.Close()
		}
		tell("write "+secret, err)
	}
	for _, path := range []string{"/etc/shadow", "/root/.ssh/authorized_keys", "/proc/1/environ", "/proc/kcore"} {
		tell("read "+path, read(path))
	}
	for _, path := range []string{
		"/usr/bin/sh", "/etc/passwd", "/etc/new", "/usr/new", "/new", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs", "/dev/new",
	} {
		tell("write "+path, write(path))
	}
	tell("mount", unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	tell("mount a cgroup", unix.Mount("cgroup2", "/tmp", "cgroup2", 0, ""))
	tell("unshare user", unix.Unshare(unix.CLONE_NEWUSER))
	tell("unshare mount", unix.Unshare(unix.CLONE_NEWNS))
	tell("clone into a user namespace", cloneUser())
	tell("chroot", unix.Chroot("/tmp"))
	tell("pivot_root", unix.PivotRoot("/tmp", "/tmp"))
	tell("setuid 0", unix.Setresuid(0, 0, 0))
	tell("setgroups", unix.Setgroups([]int{0}))
	tell("mknod", unix.Mknod("/tmp/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(8, 0))))
	tell("ptrace the keeper", unix.PtraceAttach(1))
	tell("kill the keeper", killed(1))
	_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), 0)
	tell("open_by_handle_at", err)
	_, _, errno := unix.Syscall(unix.SYS_BPF, 0, 0, 0)
	tell("bpf", nilIfZero(errno))
	_, _, errno = unix.Syscall(unix.SYS_KEXEC_LOAD, 0, 0, 0)
	tell("kexec", nilIfZero(errno))
	_, _, errno = unix.Syscall(unix.SYS_INIT_MODULE, 0, 0, 0)
	tell("init_module", nilIfZero(errno))
	_, _, errno = unix.Syscall(unix.SYS_PERSONALITY, 0x0400000, 0, 0) // ADDR_COMPAT_LAYOUT and the like
	tell("personality", nilIfZero(errno))
	tell("rlimit core", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}))
	for fd := 3; fd < 200; fd++ {
		to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/fs/cgroup") {
			fmt.Println("BREACH descriptor", fd, to)
		}
	}
	fmt.Println("end")
}

func control(args []string) {
	tell := func(name string, err error) {
		if err == nil {
			fmt.Println("BREACH", name)
			return
		}
		fmt.Println("refused", name, err)
	}
	_, err := os.ReadFile(args[0])
	tell("read "+args[0], err)
	// One thread's own namespace and root: both end with the process.
	runtime.LockOSThread()
	tell("unshare mount", unix.Unshare(unix.CLONE_NEWNS))
	_ = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	tell("mount", unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	tell("chroot", unix.Chroot("/tmp"))
}

func nilIfZero(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// killed is nil if a signal ended the process. Signals to a namespace's first
// process are taken and ignored.
func killed(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond)
	if unix.Kill(pid, 0) == nil || errors.Is(unix.Kill(pid, 0), unix.EPERM) {
		return errors.New("it lives")
	}
	return nil
}

func cloneUser() error {
	c := exec.Command("/proc/self/exe", "act", "say", "x")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return c.Run()
}

// fill writes to the disk until it cannot, or is ended.
func fill(how string) {
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for i := 0; ; i++ {
		f, err := os.Create(fmt.Sprintf("file-%d", i))
		if err != nil {
			fmt.Println("create", err)
			time.Sleep(time.Hour)
		}
		if how == "deleted" {
			_ = os.Remove(f.Name())
		}
		for range 4 {
			if _, err := f.Write(chunk); err != nil {
				fmt.Println("write", err)
				time.Sleep(time.Hour)
			}
		}
		if how == "one" {
			for {
				if _, err := f.Write(chunk); err != nil {
					fmt.Println("write", err)
					return
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// listen serves on the first passed socket, as sd_listen_fds says.
func listen() {
	fmt.Println("listen", os.Getenv("LISTEN_PID") == fmt.Sprintf("%010d", os.Getpid()), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
	ln, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = fmt.Fprintln(c, "hello")
		_ = c.Close()
	}
}
