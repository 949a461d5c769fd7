package binary

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheKeeperRunsFromMemory(t *testing.T) {
	k, err := Open()
	if errors.Is(err, ErrNotBuilt) {
		if os.Getenv("CI") != "" || os.Getenv("NODEAGENT_LAB_CACHE") != "" {
			t.Fatal(err)
		}
		t.Skip("built without make: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	// Without its descriptors it ends at once: that it ran is what counts.
	var exit *exec.ExitError
	if err := exec.Command(k.Path()).Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want code 1", err)
	}
	raw, err := os.ReadFile(k.Path())
	if err != nil || !bytes.HasPrefix(raw, []byte("\x7fELF")) {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	if _, err := unix.Pwrite(int(k.f.Fd()), []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("it can be written: %v", err)
	}
}
