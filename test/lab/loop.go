package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attachLoop gives the file a loop device that goes by itself with its last
// user: with the mount, or with this process if it dies before it mounts.
func attachLoop(path string) (*os.File, error) {
	back, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the disk: %w", err)
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for a loop device: %w", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:unix.LO_NAME_SIZE-1], path)
	for range 50 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("cannot find a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot open the loop device: %w", err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("cannot set up /dev/loop%d: %w", n, err)
		}
		// Somebody else was given the same one and was faster.
	}
	return nil, errors.New("cannot get a loop device: each was taken by somebody else")
}

// loopsBelow lists the loop devices whose file lies below dir.
func loopsBelow(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var loops []string
	for _, f := range files {
		back, err := os.ReadFile(f)
		if err != nil {
			continue // detached meanwhile
		}
		if strings.HasPrefix(strings.TrimSpace(string(back)), dir+"/") {
			loops = append(loops, "/dev/"+strings.Split(f, "/")[3])
		}
	}
	return loops, nil
}

// waitLoopsGone waits until the kernel has let go of the disks below dir; it
// does so a moment after the last process of the node is gone.
func waitLoopsGone(dir string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		loops, err := loopsBelow(dir)
		if err != nil || len(loops) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot free %s: in use by something outside the lab", strings.Join(loops, ", "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
