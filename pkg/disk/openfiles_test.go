//go:build linux

package disk

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

func TestCgroupName(t *testing.T) {
	for spec, want := range map[string]string{
		"/kubepods/burstable/podu-1/4f3c":                     "4f3c",
		"kubepods-burstable-podu_1.slice:cri-containerd:4f3c": "cri-containerd-4f3c.scope",
		"system.slice:docker:4f3c":                            "docker-4f3c.scope",
		"system.slice::4f3c":                                  "4f3c.scope",
		"system.slice:x:own.slice":                            "own.slice",
		"":                                                    "",
		"/":                                                   "",
		"..":                                                  "",
	} {
		if got := cgroupName(runtime.Container{Cgroup: spec}); got != want {
			t.Errorf("cgroupName(%q) = %q, want %q", spec, got, want)
		}
	}
}

func TestOwnerOf(t *testing.T) {
	var holders []Holder
	for _, cgroup := range []string{"/kubepods/podu-1/aa", "/kubepods/podu-2/bb", "kubepods.slice:cri-containerd:cc", "/k8s.io/x", "/default/x"} {
		holders = append(holders, Holder{Container: runtime.Container{Cgroup: cgroup}})
	}
	s := &openScan{holders: holders, cgroups: cgroupNames(holders)}
	for text, want := range map[string]int{
		"0::/kubepods/podu-1/aa\n":                                              0,
		"0::/../../podu-2/bb\n":                                                 1, // seen from another cgroup namespace
		"12:pids:/kubepods/podu-1/aa/child/deeper\n0::/\n":                      0,
		"12:name=systemd:/\n4:memory:/kubepods/podu-2/bb\n0::/\n":               1,
		"0::/kubepods.slice/kubepods-podu.slice/cri-containerd-cc.scope/init\n": 2,
		"0::/kubepods/podu-1/aa/bb\n":                                           0, // a name that the container chose
		"0::/k8s.io/x\n":                                                        3,
		"0::/default/x/child\n":                                                 4,
		"0::/\n":                                                                -1,
		"0::/system.slice/sshd.service\n":                                       -1,
		"":                                                                      -1,
		"garbage":                                                               -1,
		"1:a\n/\n":                                                              -1,
	} {
		if got := s.ownerOf([]byte(text)); got != want {
			t.Errorf("ownerOf(%q) = %d, want %d", text, got, want)
		}
	}
}

// TestHelperHold is no test: it is the process that the tests below start. It
// does what the lines on its standard input say and answers each with one.
func TestHelperHold(t *testing.T) {
	if os.Getenv("HOLD") == "" {
		t.Skip("a process of TestOpenFiles")
	}
	lines := bufio.NewScanner(os.Stdin)
	var kept []*os.File
	for lines.Scan() {
		what, arg, _ := strings.Cut(lines.Text(), " ")
		err := obey(what, arg, &kept)
		fmt.Printf("did %v\n", err)
	}
	os.Exit(0)
}

func obey(what, arg string, kept *[]*os.File) error {
	switch what {
	case "open":
		f, err := os.OpenFile(arg, os.O_RDWR, 0)
		*kept = append(*kept, f)
		return err
	case "read":
		f, err := os.Open(arg)
		*kept = append(*kept, f)
		return err
	case "path": // without a word to the file system
		fd, err := unix.Open(arg, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		*kept = append(*kept, os.NewFile(uintptr(fd), arg))
		return nil
	case "fifo": // to hold one open without a reader
		f, err := os.OpenFile(arg, os.O_RDWR|syscall.O_NONBLOCK, 0)
		*kept = append(*kept, f)
		return err
	case "tmpfile":
		fd, err := unix.Open(arg, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "tmpfile")
		*kept = append(*kept, f)
		_, err = f.Write(make([]byte, 1<<20))
		return err
	case "memfd":
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "memfd")
		*kept = append(*kept, f)
		_, err = f.Write(make([]byte, 1<<20))
		return err
	case "grow":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		_, err = (*kept)[n].Write(make([]byte, 1<<20))
		return err
	}
	return fmt.Errorf("%s is unknown", what)
}

// holder is a process in a cgroup of the test.
type holderProcess struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
	cmd *exec.Cmd
}

func startHolder(t *testing.T, cgroup string) *holderProcess {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperHold$")
	cmd.Env = append(os.Environ(), "HOLD=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &holderProcess{t: t, in: in, out: bufio.NewScanner(out), cmd: cmd}
	t.Cleanup(p.end)
	must(t, os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0))
	return p
}

func (p *holderProcess) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *holderProcess) do(line string) {
	p.t.Helper()
	fmt.Fprintln(p.in, line)
	for p.out.Scan() {
		if answer, ok := strings.CutPrefix(p.out.Text(), "did "); ok {
			if answer != "<nil>" {
				p.t.Fatalf("%s: %s", line, answer)
			}
			return
		}
	}
	p.t.Fatalf("%s: the process ended", line)
}

// hierarchies are those in which a test can make a cgroup: one of version 1,
// and version 2, as they are there.
func hierarchies(t *testing.T) map[string]string {
	out := map[string]string{}
	for name, path := range map[string]string{"v1": "/sys/fs/cgroup/pids", "hybrid": "/sys/fs/cgroup/unified", "v2": "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err == nil {
			out[name] = path
		}
	}
	if len(out) == 0 {
		t.Fatal("no cgroup hierarchy is mounted")
	}
	return out
}

func makeCgroup(t *testing.T, path string) string {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Errorf("a cgroup is left behind: %v", err)
		}
	})
	return path
}

// TestOpenFiles holds deleted files with real processes in real cgroups. It
// needs root.
func TestOpenFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	for name, root := range hierarchies(t) {
		t.Run(name, func(t *testing.T) { testOpenFiles(t, root) })
	}
}

func testOpenFiles(t *testing.T, root string) {
	// Where nobody else writes: a file lies in one piece there, and takes no block
	// more when it is written back.
	dir := newOverlay(t, "ext4", nil).backing
	top := makeCgroup(t, filepath.Join(root, fmt.Sprintf("nodeagent-test-%d", os.Getpid())))
	one := makeCgroup(t, filepath.Join(top, "one"))
	nested := makeCgroup(t, filepath.Join(one, "child"))
	other := makeCgroup(t, filepath.Join(top, "other"))
	a, b, c := startHolder(t, one), startHolder(t, nested), startHolder(t, other)

	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	in := func(cgroup string) Holder {
		return Holder{Container: runtime.Container{Cgroup: strings.TrimPrefix(cgroup, root)}, Devices: []uint64{st.Dev}}
	}
	holders := []Holder{in(one), in(other), {Container: runtime.Container{Cgroup: "/nodeagent-test/none"}, Devices: []uint64{st.Dev}}}
	scan := func() []OpenFiles {
		t.Helper()
		found, err := NewOpenFileScanner("/proc").Scan(t.Context(), holders)
		must(t, err)
		for i, f := range found {
			if f.Err != nil {
				t.Fatalf("holder %d: %v", i, f.Err)
			}
		}
		return found
	}
	want := func(what string, first, second Usage) []OpenFiles {
		t.Helper()
		found := scan()
		if found[0].Held[st.Dev] != first || found[1].Held[st.Dev] != second || len(found[2].Held) != 0 {
			t.Errorf("%s: %+v, want %+v and %+v", what, found, first, second)
		}
		return found
	}
	want("nothing", Usage{}, Usage{})

	// Two processes of one container and one of another hold one file, and
	// one of them twice.
	file := filepath.Join(dir, "new\nline (deleted)")
	write(t, file, 3<<20)
	for _, p := range []*holderProcess{a, a, b, c} {
		link := filepath.Join(dir, "link") // a name without the newline, for the protocol
		must(t, os.Symlink(file, link))
		p.do("open " + link)
		must(t, os.Remove(link))
	}
	want("still named", Usage{}, Usage{})
	second := filepath.Join(dir, "second")
	must(t, os.Link(file, second))
	must(t, os.Remove(file))
	want("another link", Usage{}, Usage{})
	must(t, unix.Stat(second, &st))
	held := st.Blocks * 512 // the oracle: the kernel's own count while it had a name
	must(t, os.Remove(second))
	found := want("deleted", Usage{Bytes: held, Inodes: 1}, Usage{})
	if n := len(found[0].Files); n != 1 || !strings.HasSuffix(found[0].Files[0].Path, "(deleted)") {
		t.Errorf("files %+v", found[0].Files)
	}

	// What is no file on disk, or has a name, counts nothing.
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	b.do("fifo " + fifo)
	must(t, os.Remove(fifo))
	b.do("memfd x")
	b.do("open /dev/null")
	want("memfd and FIFO", Usage{Bytes: held, Inodes: 1}, Usage{})

	c.do("tmpfile " + dir)
	want("a file that never had a name", Usage{Bytes: held, Inodes: 1}, Usage{Bytes: 1 << 20, Inodes: 1})

	// The first process goes: the file is the other container's still.
	a.end()
	want("held by the nested process", Usage{Bytes: held, Inodes: 1}, Usage{Bytes: 1 << 20, Inodes: 1})
	b.end()
	want("held by the other container", Usage{}, Usage{Bytes: held + 1<<20, Inodes: 2})
	c.do("grow 0") // writes over the first MiB: nothing new is allocated
	want("written over", Usage{}, Usage{Bytes: held + 1<<20, Inodes: 2})
	c.do("grow 1") // behind its first
	want("grown", Usage{}, Usage{Bytes: held + 2<<20, Inodes: 2})
	c.end()
	want("freed", Usage{}, Usage{})
}

// TestOpenFilesInAnOverlay: a file that was deleted in an overlay, whose device
// no folder of the host has; and one of the image, which nobody gets back.
func TestOpenFilesInAnOverlay(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	var root string
	for _, root = range hierarchies(t) {
		break
	}
	merged := newOverlay(t, "ext4", func(t testing.TB, lower string) { write(t, filepath.Join(lower, "of-the-image"), 2<<20) }).merged
	group := makeCgroup(t, filepath.Join(root, fmt.Sprintf("nodeagent-test-%d", os.Getpid())))
	p := startHolder(t, group) // its end comes before the mount goes

	file := filepath.Join(merged, "app.log")
	write(t, file, 5<<20)
	p.do("open " + file)
	must(t, os.Remove(file))
	image := filepath.Join(merged, "of-the-image")
	p.do("read " + image) // opened to write it would be copied up
	must(t, os.Remove(image))

	h := Holder{Container: runtime.Container{Cgroup: strings.TrimPrefix(group, root)}}
	found, err := NewOpenFileScanner("/proc").Scan(t.Context(), []Holder{h})
	must(t, err)
	if got := found[0].Held[layerDevice]; found[0].Err != nil || got != (Usage{Bytes: 5 << 20, Inodes: 1}) {
		t.Errorf("%+v, want 5 MiB in the layer", found[0])
	}
	if !strings.HasSuffix(found[0].Files[0].Path, "/app.log (deleted)") {
		t.Errorf("files %+v", found[0].Files)
	}
}

// TestOpenFilesIsBounded: a container with more descriptors than are looked at
// has no figure rather than a wrong one.
func TestOpenFilesIsBounded(t *testing.T) {
	s := &openScan{holders: make([]Holder, 1), found: make([]OpenFiles, 1), count: []int{maxDescriptors}, cgroups: map[string][]int{}}
	s.text, s.link = make([]byte, 4096), make([]byte, 4096)
	own, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	for name := range strings.SplitSeq(strings.TrimSpace(string(own)), "/") {
		s.cgroups[strings.Split(name, "\n")[0]] = []int{0}
	}
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer func() { _ = unix.Close(proc) }()
	s.process(proc, strconv.Itoa(os.Getpid()), make([]byte, 4096))
	if s.found[0].Err == nil {
		t.Error("no error")
	}
}

func TestOpenFilesWithoutProc(t *testing.T) {
	if _, err := NewOpenFileScanner(filepath.Join(t.TempDir(), "none")).Scan(t.Context(), nil); err == nil {
		t.Error("no error")
	}
}

func BenchmarkOpenFiles(b *testing.B) {
	h := []Holder{{Container: runtime.Container{Cgroup: "/none"}}}
	s := NewOpenFileScanner("/proc")
	for b.Loop() {
		if _, err := s.Scan(b.Context(), h); err != nil {
			b.Fatal(err)
		}
	}
}
