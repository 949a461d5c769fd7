package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// fileSystem is one that a scratch disk can have: how it is made on the host,
// and mounted in the guest with project quota counted and enforced.
type fileSystem struct {
	name    string
	mkfs    []string
	options string
	modules []string
}

func fileSystems() []fileSystem {
	return []fileSystem{
		{"ext4", []string{"mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"}, "prjquota", []string{"ext4", "quota_v2"}},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}, "pquota", []string{"xfs"}},
	}
}

// disk is a scratch disk that is wanted, or the guest's tmpfs.
type disk struct {
	fs   fileSystem
	size int64 // bytes
}

// onTmpfs is the place that needs no disk.
const onTmpfs = "tmpfs"

// disks is a flag that can be given more than once.
type disks []disk

func (d *disks) String() string {
	var all []string
	for _, one := range *d {
		all = append(all, one.fs.name)
	}
	return strings.Join(all, ",")
}

// Set takes tmpfs or FILESYSTEM:SIZE.
func (d *disks) Set(text string) error {
	if text == onTmpfs {
		*d = append(*d, disk{fs: fileSystem{name: onTmpfs}})
		return nil
	}
	name, size, _ := strings.Cut(text, ":")
	bytes, err := parseSize(size)
	if err != nil {
		return err
	}
	for _, fs := range fileSystems() {
		if fs.name == name {
			*d = append(*d, disk{fs: fs, size: bytes})
			return nil
		}
	}
	return fmt.Errorf("%q is no file system: known are tmpfs, ext4:SIZE, xfs:SIZE", name)
}

// parseSize reads a number of bytes with K, M or G of 1024.
func parseSize(text string) (int64, error) {
	unit := int64(1)
	for i, suffix := range []string{"K", "M", "G"} {
		if cut, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = cut, int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no size such as 512M or 1G", text)
	}
	return n * unit, nil
}

// format makes the disk's image in dir: sparse, so it costs what is written.
func (d disk) format(ctx context.Context, dir string) (image string, err error) {
	f, err := os.CreateTemp(dir, d.fs.name+"-*.img")
	if err != nil {
		return "", fmt.Errorf("cannot make a disk: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(d.size); err != nil {
		return "", fmt.Errorf("cannot make a disk: %w", err)
	}
	args := append(d.fs.mkfs[1:len(d.fs.mkfs):len(d.fs.mkfs)], f.Name())
	if out, err := exec.CommandContext(ctx, d.fs.mkfs[0], args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot make a disk with %s: %w: %s", d.fs.name, err, strings.TrimSpace(string(out)))
	}
	return f.Name(), nil
}

// inGuest tells the guest where the nth disk belongs.
func (d disk) inGuest(n int) guest.Disk {
	g := guest.Disk{FS: d.fs.name, Options: d.fs.options, Dir: fmt.Sprintf("/disk/%d-%s", n, d.fs.name)}
	if d.size > 0 {
		g.Serial = serial(n)
	}
	return g
}

func serial(n int) string { return "scratch" + strconv.Itoa(n) }
