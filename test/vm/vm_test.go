package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bootEnv names the lab program, and says by that that machines may be booted.
const bootEnv = "NODEAGENT_LAB"

// TestMachine boots real machines with the tests of testdata/guest.
func TestMachine(t *testing.T) {
	lab := os.Getenv(bootEnv)
	if lab == "" {
		t.Skipf("%s is not set: make test-vm sets it", bootEnv)
	}
	vm := filepath.Join(t.TempDir(), "vm")
	build := exec.Command("go", "build", "-o", vm, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	disks := []string{"--disk", "ext4:512M", "--disk", "xfs:512M"}
	for _, c := range []struct {
		name, run, timeout string
		flags              []string
		code               int
		says               []string
	}{
		{name: "all is there", run: "Cgroup|Quota|Overlay|Shipped", flags: disks, says: []string{
			"--- PASS: TestProjectQuota", "--- PASS: TestCgroupV2Alone", "on ext4: ok", "on xfs: ok",
		}},
		{name: "a failure under systemd", run: "Fails|Shipped|Systemd|CgroupV2Alone", flags: []string{"--systemd"}, code: 1, says: []string{
			"as it should", "FAILED with exit code 1", "--- PASS: TestSystemdIsProcess1",
		}},
		{name: "a killed test", run: "Killed", code: 137, says: []string{"ended by the signal: killed"}},
		{name: "a test that hangs", run: "Hangs", timeout: "5s", code: 2, says: []string{"test timed out after 5s", "TestHangs"}},
		{name: "a kernel that panics", run: "PanicsTheKernel", code: exitBroken, says: []string{"in test/vm/testdata/guest on tmpfs", "Kernel panic"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"run", "--lab", lab, "--program", "du"}, c.flags...)
			if c.timeout != "" {
				args = append(args, "--timeout", c.timeout)
			}
			args = append(args, "./testdata/guest", "--", "-test.run="+c.run)
			cmd := exec.CommandContext(t.Context(), vm, args...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			var exit *exec.ExitError
			if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			t.Logf("\n%s", out.String())
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("the output does not say %q", text)
				}
			}
		})
	}
}
