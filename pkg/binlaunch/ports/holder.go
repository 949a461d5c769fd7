package ports

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Holder is the process that has a socket open.
type Holder struct {
	Pid    int
	Comm   string
	PodUID string // of the pod whose cgroup it is in
}

// String names it for people.
func (h Holder) String() string {
	return fmt.Sprintf("process %d (%s)", h.Pid, h.Comm)
}

// FindHolder looks for the process that has a socket open, through the open
// files of all processes below proc: tens of milliseconds on a full node, so
// it is done only once somebody has to wait. A socket that was passed on is
// held by several; the one with the lowest pid is told.
func FindHolder(proc string, inode uint64) (Holder, bool) {
	folders, err := os.ReadDir(proc)
	if err != nil {
		return Holder{}, false
	}
	best := 0
	for _, f := range folders {
		pid, err := strconv.Atoi(f.Name())
		if err != nil || (best != 0 && pid > best) {
			continue
		}
		if Owns(proc, pid, inode) {
			best = pid
		}
	}
	if best == 0 {
		return Holder{}, false
	}
	comm, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(best), "comm"))
	groups, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(best), "cgroup"))
	return Holder{Pid: best, Comm: strings.TrimSpace(string(comm)), PodUID: podUID(string(groups))}, true
}

// podUID finds a pod's uid in the names of its cgroups, which the kubelet's
// systemd driver writes with underscores.
func podUID(groups string) string {
	m := regexp.MustCompile(`[/-]pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})`).FindStringSubmatch(groups)
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(m[1], "_", "-")
}

// Owns tells whether a process has a socket open.
func Owns(proc string, pid int, inode uint64) bool {
	folder := filepath.Join(proc, strconv.Itoa(pid), "fd")
	files, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	want := fmt.Sprintf("socket:[%d]", inode)
	for _, f := range files {
		if name, err := os.Readlink(filepath.Join(folder, f.Name())); err == nil && name == want {
			return true
		}
	}
	return false
}
