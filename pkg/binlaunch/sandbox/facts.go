package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// facts are what a plan depends on besides the Spec. They do not change while
// the agent runs.
type facts struct {
	bootID   string
	userNS   bool
	landlock int // the kernel's ABI, 0: none
	sealable bool
	host     []hostPath // of the host, shown to isolated tasks
	passwd   string
}

// hostPath is one thing of the host's system that programs need.
type hostPath struct {
	path string
	link string // it is a link with this text
	kind hostKind
}

type hostKind int

const (
	hostFolder hostKind = iota // mounted
	hostLink
	hostFile // small: copied
)

// look reads the facts; hostRoot is where the host's root is seen.
func look(hostRoot string) facts {
	f := facts{bootID: bootID(), landlock: landlockABI(), userNS: true, sealable: sealable()}
	if raw, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil {
		n, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
		f.userNS = n > 0
	} else {
		_, err := os.Stat("/proc/self/ns/user")
		f.userNS = err == nil
	}
	raw, err := os.ReadFile(filepath.Join(hostRoot, "etc/passwd"))
	if err == nil {
		f.passwd = string(raw)
	}
	for _, p := range systemPaths() {
		if h, ok := lookAt(hostRoot, p); ok {
			f.host = append(f.host, h)
		}
	}
	return f
}

// systemPaths are what programs, scripts and resolvers need and what holds no
// secret. What else is in /etc stays hidden.
func systemPaths() []string {
	return []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
		"/etc/alternatives", "/etc/ssl", "/etc/pki", "/etc/ca-certificates",
		"/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf",
		"/etc/localtime", "/etc/services", "/etc/protocols", "/etc/os-release",
	}
}

func lookAt(hostRoot, path string) (hostPath, bool) {
	at := filepath.Join(hostRoot, path)
	st, err := os.Lstat(at)
	if err != nil {
		return hostPath{}, false
	}
	top := filepath.Dir(path) == "/"
	switch {
	case st.Mode()&os.ModeSymlink != 0 && top:
		text, err := os.Readlink(at)
		return hostPath{path, text, hostLink}, err == nil
	case st.IsDir():
		return hostPath{path: path, kind: hostFolder}, true
	default:
		return hostPath{path: path, kind: hostFile}, !top
	}
}

func bootID() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw))
}

func landlockABI() int {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// sealable tells whether the kernel can make a whole tree of mounts read-only
// at once (mount_setattr, Linux 5.12).
func sealable() bool {
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	return err != unix.ENOSYS
}
