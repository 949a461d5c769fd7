package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// shipSystemd puts a systemd into the archive, from the folder that Debian's
// packages were unpacked to. Of units it brings targets and slices alone, so
// that nothing is started but the tests.
func (a *archive) shipSystemd(ctx context.Context, root string) error {
	for _, name := range []string{guest.Systemd, "/bin/systemctl", "/usr/bin/systemd-run"} {
		if err := a.shipFrom(ctx, root, name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for _, kind := range []string{"*.target", "*.slice"} {
		units, err := filepath.Glob(filepath.Join(root, "lib/systemd/system", kind))
		if err != nil {
			return err
		}
		for _, u := range units {
			if err := a.file("/lib/systemd/system/"+filepath.Base(u), u); err != nil {
				return err
			}
		}
	}
	return errors.Join(
		a.folder("tmp"),
		a.text("etc/machine-id", "6e6f64656167656e7400000000000001\n"),
		a.text("etc/os-release", "ID=debian\nPRETTY_NAME=\"nodeagent's test machine\"\n"),
		a.text("etc/systemd/system/"+guest.Unit, guest.UnitText),
	)
}
