package guest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Systemd is the program that process 1 becomes if the plan wants it.
const Systemd = "/lib/systemd/systemd"

// Unit is all that it starts. systemd makes the rest of a machine itself:
// mounts, cgroups, slices, a loopback.
const Unit = "vm-worker.service"

// UnitText is its file. However the worker ends, the machine does.
const UnitText = `[Unit]
DefaultDependencies=no
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
ExecStart=@/init ` + worker + `
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Delegate=yes
LimitNOFILE=1024:524288
OOMPolicy=continue
`

// SystemdEnv is set for what runs below systemd here: it may treat process 1
// as no test may on a machine that is somebody's.
const SystemdEnv = "NODEAGENT_VM_SYSTEMD"

// becomeSystemd is process 1's way. It returns only if that fails.
func becomeSystemd() error {
	if err := rootFromRamfs(); err != nil {
		return err
	}
	args := []string{Systemd, "--unit=" + Unit, "--log-target=kmsg", "--log-level=notice", "--show-status=no", "--default-standard-output=null"}
	if err := unix.Exec(Systemd, args, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}); err != nil {
		return fmt.Errorf("cannot execute %s: %w", Systemd, err)
	}
	return nil
}
