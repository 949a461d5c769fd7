package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// grace is how long a run that ended may leave its output open to others.
const grace = 5 * time.Second

// notRun is the code of a run that could not start, as a shell has it.
const notRun = 127

// teller sends messages. After an error it sends no more: the host then misses
// Done.
type teller struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error
}

func (t *teller) message(m Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = t.enc.Encode(m)
	}
}

// Write takes the output of a run.
func (t *teller) Write(p []byte) (int, error) {
	t.message(Message{Kind: Output, Data: p})
	return len(p), nil
}

// carryOut runs the program with its file system at /tmp: a test that names
// /tmp itself then is on that, too.
func (r Run) carryOut(tell *teller) error {
	if err := syscall.Mount(r.Tmp, "/tmp", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind %s to /tmp: %w", r.Tmp, err)
	}
	tell.message(Message{Kind: Start, Text: r.Name})
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Path, r.Args...)
	cmd.Env, cmd.Dir = r.Env, r.Dir
	cmd.Stdout, cmd.Stderr = tell, tell
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	code, how := outcome(cmd.Run())
	if ctx.Err() != nil {
		how = fmt.Sprintf("did not end in %s and was killed", r.Timeout)
	}
	tell.message(Message{Kind: End, Code: code, Text: how})
	if err := syscall.Unmount("/tmp", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot take %s from /tmp: %w", r.Tmp, err)
	}
	return nil
}

// outcome is the exit code of a run as a shell would give it, and how the run
// ended if it did not exit by itself.
func outcome(err error) (code int, how string) {
	if err == nil {
		return 0, ""
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return notRun, err.Error()
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), "was ended by the signal: " + status.Signal().String()
	}
	return exit.ExitCode(), ""
}
