// Command prisoner takes the place of the confined process and tries to get
// out. What it managed to do it tells as the reason of its failure.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

// landlock is "no" when the kernel is to be taken for one without it.
var landlock string

func main() {
	var c pull.Confinement
	var err error
	if landlock != "no" {
		if c, err = pull.Confine(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var job pull.Job
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	c.UID, c.NoNewPrivs = 64101, true // as it would lie
	_ = out.Encode(pull.Message{Confined: &c})
	_ = out.Encode(pull.Message{Failure: &pull.Failure{Kind: pull.Refused, Message: strings.Join(try(job), "; ")}})
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// try returns what it could do, each as "did: …", after what it is expected
// to be able to do.
func try(job pull.Job) []string {
	var did []string
	for what, f := range map[string]func() error{
		"read the host's users":     func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"read the host's secrets":   func() error { _, err := os.ReadFile("/etc/shadow"); return err },
		"see the host's processes":  func() error { _, err := os.ReadDir("/proc/1"); return err },
		"see the host's devices":    func() error { _, err := os.ReadDir("/dev"); return err },
		"see the host's root":       func() error { return onlyJail("/") },
		"walk out by dot-dot":       func() error { return onlyJail("/dest/../../../..") },
		"walk out by a descriptor":  walkOut,
		"write to its root":         func() error { return os.WriteFile("/x", nil, 0o644) },
		"write to /etc":             func() error { return os.WriteFile("/etc/hosts", nil, 0o644) },
		"write its own program":     func() error { return os.WriteFile("/"+pull.Name, nil, 0o755) },
		"become root":               func() error { return unix.Setresuid(0, 0, 0) },
		"mount":                     func() error { return unix.Mount("tmpfs", "/dest", "tmpfs", 0, "") },
		"leave by a user namespace": userNamespace,
		"chroot":                    func() error { return unix.Chroot("/dest") },
		"make a device":             func() error { return unix.Mknod("/dest/null", unix.S_IFCHR|0o666, 1<<8|3) },
		"signal others":             func() error { return unix.Kill(-1, 0) },
		"trace its parent":          func() error { return unix.PtraceAttach(os.Getppid()) },
		"open a raw socket":         func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, 1); return err },
		"execute what it wrote":     execute,
	} {
		if err := f(); err == nil {
			did = append(did, "did: "+what)
		}
	}
	if landlock != "no" {
		for what, f := range map[string]func() error{
			"raise its limits":         func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 30, Max: 1 << 30}) },
			"make a FIFO":              func() error { return unix.Mkfifo("/dest/fifo", 0o644) },
			"make a socket":            func() error { _, err := net.Listen("unix", "/dest/socket"); return err },
			"execute its own program":  func() error { return exec.Command("/" + pull.Name).Run() },
			"reach the host's sockets": func() error { _, err := net.Dial("unix", "@"+job.Items[0].ETag+job.Items[0].Sources[0]); return err },
		} {
			if err := f(); err == nil {
				did = append(did, "did: "+what)
			}
		}
	}
	if err := os.WriteFile("/dest/mine", []byte("x"), 0o644); err != nil {
		did = append(did, "did not: write to its folder: "+err.Error())
	}
	return append(did, "tried")
}

// onlyJail fails if a folder shows no more than the jail's own.
func onlyJail(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch e.Name() {
		case "dest", "etc", pull.Name:
		default:
			return nil
		}
	}
	return errors.New("only the jail")
}

// walkOut looks for a descriptor that was left open and leads elsewhere.
func walkOut() error {
	for fd := 3; fd < 256; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			_ = unix.Close(up)
			return nil
		}
	}
	return errors.New("none")
}

func userNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWUSER); err != nil {
		return err
	}
	return unix.Mount("proc", "/dest", "proc", 0, "")
}

func execute() error {
	b, err := os.ReadFile("/" + pull.Name)
	if err != nil {
		return err
	}
	if err := os.WriteFile("/dest/run", b, 0o755); err != nil {
		return err
	}
	return exec.Command("/dest/run").Run()
}
