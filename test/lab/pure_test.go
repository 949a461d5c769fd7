package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseCgroupMounts(t *testing.T) {
	for _, c := range []struct {
		name, mounts string
		want         cgroups
	}{
		{"version 2 alone", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", cgroups{v2: "/sys/fs/cgroup"}},
		{"hybrid", "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
			cgroups{v1: []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/systemd"}, v2: "/sys/fs/cgroup/unified"}},
		{"none", "proc /proc proc rw 0 0\n\n", cgroups{}},
	} {
		if got := parseCgroupMounts(c.mounts); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	fields := " %s 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 %d 18 4711 20"
	for _, command := range []string{"etcd", "a b", ") R 1 (", "new\nline"} {
		start, ended, err := parseStat("42 (" + command + ")" + fmt.Sprintf(fields, "S", 1))
		if err != nil || start != 4711 || ended {
			t.Errorf("%q: start %d, ended %t, %v", command, start, ended, err)
		}
	}
	for threads, want := range map[int]bool{0: true, 1: true, 2: false} {
		if _, ended, err := parseStat("42 (etcd)" + fmt.Sprintf(fields, "Z", threads)); err != nil || ended != want {
			t.Errorf("a zombie of %d threads: ended %t, %v", threads, ended, err)
		}
	}
	for _, broken := range []string{"", "42 etcd S 1", "42 (etcd) S 1 2"} {
		if _, _, err := parseStat(broken); err == nil {
			t.Errorf("%q: no error", broken)
		}
	}
}

func TestProcessIsNotMistaken(t *testing.T) {
	dir := t.TempDir()
	self, err := lookProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := recordProcess(dir, "self", self); err != nil {
		t.Fatal(err)
	}
	if got, alive := recordedProcess(dir, "self"); !alive || got != self {
		t.Errorf("recorded %+v, alive %v", got, alive)
	}
	other := process{pid: self.pid, start: self.start + 1}
	if err := recordProcess(dir, "other", other); err != nil {
		t.Fatal(err)
	}
	if _, alive := recordedProcess(dir, "other"); alive {
		t.Error("a later process with the same pid is taken for the recorded one")
	}
}

func TestParseMountsBelow(t *testing.T) {
	const info = `20 1 0:1 / / rw - ext4 /dev/vda rw
30 20 7:0 / /lab/nodes/1 rw shared:1 - ext4 /dev/loop0 rw
31 20 7:1 / /laboratory rw - ext4 /dev/loop1 rw
32 20 7:2 / /lab rw - tmpfs tmpfs rw
`
	if got, want := parseMountsBelow(info, "/lab"), []string{"/lab/nodes/1", "/lab"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNodesWanted(t *testing.T) {
	for _, c := range []struct {
		running []int
		count   int
		want    []int
	}{
		{nil, 1, []int{1}}, {nil, 3, []int{1, 2, 3}}, {[]int{1}, 2, []int{1, 2}},
		{[]int{2}, 2, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1, 2, 3}},
	} {
		if got := nodesWanted(c.running, c.count); !reflect.DeepEqual(got, c.want) {
			t.Errorf("running %v, asked %d: %v, want %v", c.running, c.count, got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"8G": 8 << 30, "512M": 512 << 20, "512Mi": 512 << 20, "1073741824": 1 << 30, "1T": 1 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "G", "-1G", "0", "8X", "1M", "8G8"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	for cidr, want := range map[string]string{
		"192.0.2.0/24": "", "172.17.0.0/16": "", "10.0.0.0/8": podNetwork, "10.244.7.0/24": podNetwork,
		"172.16.0.0/12": nodeNetwork, "10.96.0.0/24": serviceNetwork,
	} {
		_, other, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if got := overlap(other); got != want {
			t.Errorf("%s: %q, want %q", cidr, got, want)
		}
	}
}

func TestRequiredVersion(t *testing.T) {
	const gomod = "module x\n\ngo 1.26.0\n\nrequire (\n\texample.org/a/b v2.0.0 // indirect\n\texample.org/a v1.2.3\n)\n\nrequire example.org/c v0.1.0\n"
	for module, want := range map[string]string{"example.org/a": "v1.2.3", "example.org/a/b": "v2.0.0", "example.org/c": "v0.1.0"} {
		if got, err := requiredVersion(gomod, module); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %s", module, got, err, want)
		}
	}
	if _, err := requiredVersion(gomod, "example.org/d"); err == nil {
		t.Error("a version of a module that is not required")
	}
}

func TestKubernetesVersion(t *testing.T) {
	want := "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
	if got := kubernetesVersion("v1.36.3"); got != want {
		t.Errorf("%s", got)
	}
}

// TestPartsArePinned reads the repository's own parts.
func TestPartsArePinned(t *testing.T) {
	dir, err := partsFolder()
	if err != nil || dir == "" {
		t.Fatalf("parts folder: %q, %v", dir, err)
	}
	for _, p := range goParts() {
		src, err := p.look(dir)
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.HasPrefix(src.key, p.name+"-"+src.version+"-") {
			t.Errorf("key %s of %s %s", src.key, p.name, src.version)
		}
		other := p
		other.flags = append([]string{"-race"}, p.flags...)
		if changed, err := other.look(dir); err != nil || changed.key == src.key {
			t.Errorf("%s: other flags, same key %s (%v)", p.name, src.key, err)
		}
	}
}

// TestDefinitionsAreTheirModules: they are what the go command fetches, and a
// module with another checksum than go.sum's is not taken.
func TestDefinitionsAreTheirModules(t *testing.T) {
	parts, err := partsFolder()
	if err != nil || parts == "" {
		t.Fatalf("parts folder: %q, %v", parts, err)
	}
	for _, d := range projectDefinitions() {
		if _, _, err := d.pinned(parts); err != nil {
			t.Error(err)
		}
	}
	const sum = "h1:oq3/M6FyrInsl8hKXmCj4ONL/2gFF/DJDt3gRdHwFQQ="
	proxy := t.TempDir()
	var module bytes.Buffer
	packed := zip.NewWriter(&module)
	for name, text := range map[string]string{"go.mod": "module example.org/a\n", "crds/a.yaml": "kind: A\n", "crds/b.yaml": "kind: B\n"} {
		w, err := packed.Create("example.org/a@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"v1.0.0.info": `{"Version":"v1.0.0"}`, "v1.0.0.mod": "module example.org/a\n", "v1.0.0.zip": module.String()} {
		if err := writeInto(proxy, "example.org/a/@v/"+name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOPROXY", "file://"+proxy)
	t.Setenv("GONOSUMDB", "example.org")
	t.Setenv("GOMODCACHE", t.TempDir())
	d := definitions{"a", "example.org/a", []string{"crds/a.yaml", "crds/b.yaml"}}
	fetch := func(cache, sum string) (string, error) {
		own := t.TempDir()
		for name, text := range map[string]string{"go.mod": "module x\nrequire example.org/a v1.0.0\n", "go.sum": "example.org/a v1.0.0 " + sum + "\n"} {
			if err := writeInto(own, "a/"+name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		show := newProgress(os.Stderr)
		defer show.close()
		return d.fetch(t.Context(), cache, own, show)
	}
	cache := t.TempDir()
	if _, err := fetch(cache, "h1:another"); err == nil || !strings.Contains(err.Error(), "its checksum is "+sum) {
		t.Errorf("another checksum: %v", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("it is in the cache: %v, %v", left, err)
	}
	dir, err := fetch(cache, sum)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.yaml": "kind: A\n", "b.yaml": "kind: B\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if again, err := d.fetch(t.Context(), cache, "", nil); err != nil || again != dir {
		t.Errorf("without the sources: %s, %v, want %s", again, err, dir)
	}
}

func TestKeyChangesWithDependencies(t *testing.T) {
	dir := t.TempDir()
	p := part{name: "a", module: "example.org/a"}
	key := func(sum string) string {
		for name, text := range map[string]string{"a/go.mod": "module x\nrequire example.org/a v1.0.0\n", "a/go.sum": sum} {
			if err := writeInto(dir, name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		src, err := p.look(dir)
		if err != nil {
			t.Fatal(err)
		}
		return src.key
	}
	if one, other := key("one"), key("other"); one == other {
		t.Errorf("another go.sum, the same key %s", one)
	}
}

func TestIsPackageLine(t *testing.T) {
	for line, want := range map[string]bool{
		"# k8s.io/api/core/v1": true, "#": false, "# import config": false, "mkdir -p $WORK/b001/": false, "# ": false,
	} {
		if isPackageLine(line) != want {
			t.Errorf("%q: %v", line, !want)
		}
	}
}

func TestCacheHoldsWholeFoldersOnly(t *testing.T) {
	cache := t.TempDir()
	show := newProgress(os.Stderr)
	defer show.close()
	fill := func(err error, name string) func(string) error {
		return func(temp string) error {
			if werr := os.WriteFile(filepath.Join(temp, name), nil, 0o755); werr != nil {
				t.Fatal(werr)
			}
			return err
		}
	}
	broken := errors.New("broken")
	if _, err := cached(context.Background(), cache, "a-v1-x", "program", show, fill(broken, "program")); !errors.Is(err, broken) {
		t.Errorf("a failed fill: %v", err)
	}
	if _, err := cached(context.Background(), cache, "a-v1-x", "program", show, fill(nil, "other")); err == nil {
		t.Error("a folder without its program is taken for whole")
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("failed fills left %v (%v)", left, err)
	}
	// What a killed fill leaves must not end up in the next.
	if err := os.MkdirAll(filepath.Join(cache, ".new-a-v1-x", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := cached(context.Background(), cache, "a-v1-x", "program", show, fill(nil, "program"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "half")); err == nil {
		t.Error("half of a killed fill is in the cache")
	}
	again, err := cached(context.Background(), cache, "a-v1-x", "program", show, fill(broken, "program"))
	if err != nil || again != dir {
		t.Errorf("a whole folder is filled again: %q, %v", again, err)
	}
	if found, ok := newestCached(cache, "a", "program"); !ok || found != dir {
		t.Errorf("newest of a: %q", found)
	}
	if found, ok := newestCached(cache, "a-v1", "program"); ok {
		t.Errorf("a key is taken for another part's: %q", found)
	}
}

func TestCertificates(t *testing.T) {
	p := paths{dir: filepath.Join(t.TempDir(), "lab")}
	if err := makePKI(p); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(p.pki("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(p.pki("node-2.crt"), p.pki("node-2.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "system:node:node-2" || cert.Subject.Organization[0] != "system:nodes" {
		t.Errorf("node-2 is %s: the node authorizer does not know it", cert.Subject)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: "172.30.0.12", KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	before := cert.SerialNumber
	if err := makePKI(p); err != nil {
		t.Fatal(err)
	}
	again, err := tls.LoadX509KeyPair(p.pki("node-2.crt"), p.pki("node-2.key"))
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := x509.ParseCertificate(again.Certificate[0]); err != nil || cert.SerialNumber.Cmp(before) != 0 {
		t.Error("a second up makes new certificates")
	}
}

func TestNodeConfig(t *testing.T) {
	for _, mayLower := range []bool{false, true} {
		var kubelet map[string]any
		if err := json.Unmarshal(kubeletConfig(2, mayLower), &kubelet); err != nil {
			t.Fatal(err)
		}
		if got := kubelet["cgroupRoot"]; got != "/nodeagent-lab/node-2" {
			t.Errorf("cgroupRoot %v", got)
		}
		if _, set := kubelet["oomScoreAdj"]; set == mayLower {
			t.Errorf("may lower the OOM score: %v, oomScoreAdj set: %v", mayLower, set)
		}
		want := "restrict_oom_score_adj = true"
		if mayLower {
			want = "restrict_oom_score_adj = false"
		}
		if !strings.Contains(containerdConfig(mayLower), want) {
			t.Errorf("containerd's configuration lacks %q", want)
		}
	}
	if conf := string(cniConfig(3)); !strings.Contains(conf, `"subnet": "10.244.3.0/24"`) {
		t.Errorf("CNI configuration: %s", conf)
	}
}

func TestParseNode(t *testing.T) {
	for s, want := range map[string]int{"1": 1, "node-2": 2} {
		if got, err := parseNode(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "node-0", "node-10", "x", "-1"} {
		if _, err := parseNode(s); err == nil {
			t.Errorf("%q is taken for a node", s)
		}
	}
}

func TestLabFolderIsNoRoot(t *testing.T) {
	for _, dir := range []string{"/", "/var", "/etc/.."} {
		t.Setenv(envLabDir, dir)
		if _, err := pathsFromEnv(); err == nil {
			t.Errorf("down would remove %s", dir)
		}
	}
}

func TestFetchUnknown(t *testing.T) {
	show := newProgress(os.Stderr)
	defer show.close()
	_, err := fetch(context.Background(), t.TempDir(), "docker", show)
	if err == nil || !strings.Contains(err.Error(), "containerd-1.6") {
		t.Errorf("%v does not say what can be fetched", err)
	}
}
