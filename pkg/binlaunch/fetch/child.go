package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// ChildMain is the whole of the confined process, if this process is meant to
// be it: then it does not return. It comes first in main.
func ChildMain() {
	if len(os.Args) > 0 && os.Args[0] == pull.Name {
		os.Exit(pull.Main())
	}
}

// child is a confined process.
type child struct {
	cmd    *exec.Cmd
	in     *os.File // it ends when this is closed
	out    *os.File
	stderr bytes.Buffer
}

// startChild starts a process in j. Files are its descriptors 3, 4, …
func startChild(ctx context.Context, j jail, o *Options, files []*os.File) (*child, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), inR.Close(), inW.Close())
	}
	defer inR.Close()
	defer outW.Close()
	c := &child{in: inW, out: outR}
	c.cmd = exec.CommandContext(ctx, program)
	c.cmd.Args = []string{pull.Name, strconv.FormatInt(o.Limits.Memory, 10)}
	c.cmd.Env = childEnviron(o)
	c.cmd.Dir = "/"
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inR, outW, &tail{b: &c.stderr}
	c.cmd.ExtraFiles = files
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Credential: &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)},
		Setsid:     true,
	}
	err = osthread.Run(func() error {
		if err := j.enter(); err != nil {
			return err
		}
		return c.cmd.Start()
	})
	if err != nil {
		_, _ = c.in.Close(), c.out.Close()
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w (%s must be a static program: CGO_ENABLED=0)", err, o.Executable)
		}
		return nil, fmt.Errorf("cannot start the process that fetches: %w", err)
	}
	return c, nil
}

// tail keeps the first KiBs of what a process has to say on its end.
type tail struct{ b *bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	if t.b.Len() < 4<<10 {
		t.b.Write(p[:min(len(p), 4<<10)])
	}
	return len(p), nil
}

// talk gives the process its job and hands each message to each, until it is
// done, has failed, or each refuses. Then it is ended.
func (c *child) talk(job pull.Job, each func(pull.Message) error) error {
	err := json.NewEncoder(c.in).Encode(job)
	if err == nil {
		err = listen(c.out, each)
	}
	_ = c.cmd.Process.Kill() // whatever it said last, nothing of it stays
	_ = c.in.Close()
	_ = c.out.Close()
	_ = c.cmd.Wait()
	var early *earlyError
	if errors.As(err, &early) {
		return c.epitaph(err)
	}
	return err
}

// earlyError says that a process ended without its last message.
type earlyError struct{ err error }

func (e *earlyError) Error() string { return "the process that fetches ended early: " + e.err.Error() }

// maxMessages bounds what a process may say, in bytes. The list of files is the
// most of it, with some 1.3 KiB for the longest path.
const maxMessages = 64 << 20

func listen(r io.Reader, each func(pull.Message) error) error {
	dec := json.NewDecoder(io.LimitReader(r, maxMessages))
	for {
		var m pull.Message
		if err := dec.Decode(&m); err != nil {
			return &earlyError{err}
		}
		if m.Failure != nil {
			return &pullError{*m.Failure}
		}
		if m.Done {
			return nil
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

// epitaph adds what the process said and how it ended.
func (c *child) epitaph(err error) error {
	said := c.stderr.String()
	if strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory") {
		return &pullError{pull.Failure{Kind: pull.Content,
			Message: fmt.Sprintf("to unpack it takes more than the %s bytes of memory allowed", c.cmd.Args[1])}}
	}
	said, _, _ = strings.Cut(said, "\n")
	if strings.Contains(said, "SIGSEGV") {
		// Go's runtime does not always live to say that it found no memory.
		return &pullError{pull.Failure{Kind: pull.Content,
			Message: fmt.Sprintf("the process that unpacks it crashed (%s), as it may where it takes more than the %s bytes of memory allowed", said, c.cmd.Args[1])}}
	}
	if state := c.cmd.ProcessState; state != nil {
		return fmt.Errorf("%w (%s; %s)", err, state, said)
	}
	return err
}

// childEnviron is all of the environment that the process gets.
func childEnviron(o *Options) []string {
	env := []string{"GOMEMLIMIT=128MiB", "GOTRACEBACK=none"}
	for _, e := range o.Environ {
		name, _, _ := strings.Cut(e, "=")
		if isProxyVariable(name) {
			env = append(env, e)
		}
	}
	return env
}

func isProxyVariable(name string) bool {
	switch strings.ToUpper(name) {
	case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY":
		return true
	}
	return false
}

// proxies are the host:port that the environment names.
func proxies(environ []string) []string {
	var out []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !isProxyVariable(name) || strings.EqualFold(name, "NO_PROXY") || value == "" {
			continue
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		u, err := url.Parse(value)
		if err != nil {
			continue // the process will say so
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		out = append(out, net.JoinHostPort(u.Hostname(), port))
	}
	return out
}
