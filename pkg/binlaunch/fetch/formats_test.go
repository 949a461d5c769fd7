package fetch

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormats unpacks what the usual tools pack.
func TestFormats(t *testing.T) {
	src := t.TempDir()
	script := "#!/bin/sh\necho hello\n"
	for name, f := range map[string]struct {
		body string
		mode fs.FileMode
	}{"x-1/x": {script, 0o755}, "x-1/conf/a": {strings.Repeat("a=b\n", 10000), 0o640}} {
		path := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.body), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../x", filepath.Join(src, "x-1/conf/link")); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	for name, command := range map[string]string{
		"x.tar":         "tar -c x-1",
		"x.tar.gz":      "tar -c x-1 | gzip",
		"x.tgz":         "tar -c x-1 | gzip",
		"x.tar.xz":      "tar -c x-1 | xz",
		"x.tar.zst":     "tar -c x-1 | zstd -19 --long=27",
		"x.tar.bz2":     "tar -c x-1 | bzip2",
		"x.zip":         "zip -q -r -y made.zip x-1 < /dev/null && cat made.zip",
		"pax.tar":       "tar --format=pax -c x-1",
		"ustar.tar.gz":  "tar --format=ustar -c x-1 | gzip",
		"two.tar.gz":    "tar -c x-1 > /dev/null; (tar -c x-1 | head -c 5120 | gzip; tar -c x-1 | tail -c +5121 | gzip)",
		"q.tar.gz?a=.z": "tar -c x-1 | gzip",
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := b.get(Artifact{URL: b.packed(src, command, name), Insecure: true, Strip: 1, Path: "sub"})
			if got := read(t, e.Path, "sub/x"); got != script {
				t.Errorf("x is %q", got)
			}
			if got := read(t, e.Path, "sub/conf/link"); got != script {
				t.Errorf("through the link: %q", got)
			}
			out, err := exec.Command("diff", "-r", src+"/x-1", e.Path+"/sub").CombinedOutput()
			if err != nil {
				t.Errorf("not what was packed: %s", out)
			}
			modes(t, e.Path, map[string]fs.FileMode{"sub/x": 0o755, "sub/conf/a": 0o644})
		})
	}
	for name, command := range map[string]string{
		"x": "cat x-1/x", "x.gz": "gzip < x-1/x", "x.xz": "xz < x-1/x", "x.zst": "zstd < x-1/x", "x.bz2": "bzip2 < x-1/x",
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := b.get(Artifact{URL: b.packed(src, command, "single/"+name), Insecure: true})
			if got := read(t, e.Path, "x"); got != script {
				t.Errorf("x is %q", got)
			}
			modes(t, e.Path, map[string]fs.FileMode{"x": 0o755})
		})
	}
	t.Run("as it is, by format", func(t *testing.T) {
		e, _ := b.get(Artifact{URL: b.packed(src, "gzip < x-1/x", "kept/x.gz"), Insecure: true, Format: "raw", Mode: 0o444, Path: "etc/kept.gz"})
		modes(t, e.Path, map[string]fs.FileMode{"etc/kept.gz": 0o444})
	})
	t.Run("several at once", func(t *testing.T) {
		e, r := b.get(
			Artifact{URL: b.server.URL + "/x.tar.gz", Insecure: true, Strip: 1},
			Artifact{URL: b.server.URL + "/single/x.zst", Insecure: true, Path: "bin/y"},
			Artifact{URL: b.server.URL + "/single/x", Insecure: true, Path: "conf/b", Mode: 0o600},
		)
		modes(t, e.Path, map[string]fs.FileMode{"x": 0o755, "bin/y": 0o755, "conf/a": 0o644, "conf/b": 0o644})
		if len(r.Artifacts) != 3 {
			t.Errorf("%+v", r)
		}
	})
}

// packed serves what a shell command makes of a folder.
func (b *bench) packed(dir, command, name string) string {
	b.t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatal(err)
	}
	path, _, _ := strings.Cut(name, "?")
	b.serve("/"+path, out)
	return b.server.URL + "/" + name
}

// modes compares permissions; every file belongs to root.
func modes(t *testing.T, dir string, want map[string]fs.FileMode) {
	t.Helper()
	for name, mode := range want {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%s has mode %v, %v; want %v", name, st.Mode(), err, mode)
		}
	}
	out, err := exec.Command("find", dir, "!", "-user", "root").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("not root's: %s, %v", out, err)
	}
}

// TestFileURL: what anybody may read is read, a secret of root is not.
func TestFileURL(t *testing.T) {
	b := newBench(t)
	open, secret, fifo := filepath.Join(b.dir, "open"), filepath.Join(b.dir, "secret"), filepath.Join(b.dir, "dir")
	for path, mode := range map[string]fs.FileMode{open: 0o644, secret: 0o600} {
		if err := os.WriteFile(path, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	parents(t, b.dir)
	b.refused("not everybody may read it", Artifact{URL: "file://" + secret, Insecure: true})
	b.refused("no regular file", Artifact{URL: "file://" + fifo, Insecure: true})
	b.refused("no such file", Artifact{URL: "file://" + b.dir + "/none", Insecure: true})
	a := Artifact{URL: "file://" + open, Insecure: true}
	e, _ := b.get(a)
	if got := read(t, e.Path, "open"); got != "content" {
		t.Errorf("got %q", got)
	}
	if _, r := b.get(a); !r.Cached {
		t.Error("an unchanged file is copied again")
	}
	if err := os.WriteFile(open, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if e, _ := b.get(a); read(t, e.Path, "open") != "changed" {
		t.Error("a changed file is not seen")
	}
	both, _, err := b.Get(context.Background(), []Artifact{a, {URL: "file://" + open, Path: "second", Insecure: true}}, nil)
	if err != nil || read(t, both.Path, "open") != read(t, both.Path, "second") {
		t.Errorf("the same file twice: %v", err)
	}
}

// parents lets others pass through the folders that testing made for root.
func parents(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
