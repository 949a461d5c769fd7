package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startUp is how long the start takes at most: what is used after it is what
// goes on being used.
const startUp = 20 * time.Second

// firstCalm is when the layers that were busy at the start are known as what
// they are, and no more is kept of those that are idle.
const firstCalm = time.Minute

// keepSmall keeps the agent's memory small. Its garbage is collected when it is
// half of what is in use: with 250 containers that takes 6 MiB less than Go's own
// setting, and no more CPU that could be measured. And the memory is given back,
// twice, that holds what only the start needed, of the program too: some 30 MiB,
// most of it for the API types that libraries register. What is used again the
// kernel brings back from its cache.
func keepSmall(ctx context.Context, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	for _, pause := range [...]time.Duration{startUp, firstCalm - startUp} {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		debug.FreeOSMemory() // the garbage of the first look at everything, too
		if err := dropProgramPages(); err != nil {
			log.Debug("the start's memory stays", "err", err)
		}
	}
	return nil
}

func dropProgramPages() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the program: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("cannot read the program's mappings: %w", err)
	}
	for _, p := range unchanged(string(maps), self) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, p.from, p.size, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("cannot give pages of %s back: %w", self, errno)
		}
	}
	return nil
}

type span struct{ from, size uintptr }

// unchanged are the parts of the program whose pages are the file's own, so
// that nothing is lost with them. A linker's relocations make pages anonymous
// that nobody may write any more: those stay.
func unchanged(smaps, program string) []span {
	var found []span
	var last span
	ours := false
	for line := range strings.Lines(smaps) {
		if from, size, ok := programPages(line, program); ok {
			last, ours = span{from, size}, true
			continue
		}
		kind, amount, _ := strings.Cut(line, ":")
		switch {
		case strings.Contains(kind, "-"): // the next mapping's range
			ours = false
		case ours && kind == "Anonymous":
			if strings.TrimSpace(amount) == "0 kB" {
				found = append(found, last)
			}
			ours = false
		}
	}
	return found
}

// programPages reads the first line of a mapping of proc_pid_smaps(5), and
// tells whether it is a part of the program that nobody may write to.
func programPages(line, program string) (from, size uintptr, ok bool) {
	f := strings.Fields(line) // range, rights, offset, device, inode, path
	if len(f) < 6 || !strings.HasPrefix(f[1], "r-") || f[5] != program {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	start, err := strconv.ParseUint(a, 16, int(8*unsafe.Sizeof(from)))
	if err != nil {
		return 0, 0, false
	}
	end, err := strconv.ParseUint(b, 16, int(8*unsafe.Sizeof(from)))
	return uintptr(start), uintptr(end - start), err == nil && end > start
}
