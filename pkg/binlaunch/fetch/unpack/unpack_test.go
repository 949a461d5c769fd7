package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

func TestClean(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "./a": "a", "a/": "a", "a//b": "a/b", "a/./b": "a/b", ".": ".", "./": ".", "a..b": "a..b", "...": "...",
		`a\b`: `a\b`, "ä": "ä", strings.Repeat("a", 255): strings.Repeat("a", 255),
		"": "!", "/": "!", "/a": "!", "..": "!", "../a": "!", "a/../b": "!", "a/..": "!", `\a`: "!", `C:\a`: "!",
		"a\x00b": "!", "a\nb": "!", "a\x1b[2J": "!", "a\xff": "!", strings.Repeat("a", 256): "!",
		strings.Repeat("a/", 64): "!", strings.Repeat("aaaaaaaaaaaaaaaaaaaa/", 60): "!",
	} {
		got, err := clean(name)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("clean(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	for _, c := range []struct {
		name, target string
		ok           bool
	}{
		{"l", "x", true}, {"l", "a/b", true}, {"l", "./x", true}, {"l", ".", true}, {"d/l", "../x", true}, {"d/e/l", "../../x", true}, {"d/l", "..", true},
		{"l", "..", false}, {"l", "../x", false}, {"d/l", "../../x", false}, {"l", "/x", false}, {"l", "", false},
		{"l", "a/../x", false}, {"l", "a/..", false}, {"d/l", "../a/../x", false}, {"l", "a\nb", false}, {"l", strings.Repeat("a", 2000), false},
	} {
		if err := checkTarget(c.name, c.target); (err == nil) != c.ok {
			t.Errorf("checkTarget(%q, %q) = %v", c.name, c.target, err)
		}
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int
		want string
		ok   bool
	}{{"a/b/c", 0, "a/b/c", true}, {"a/b/c", 1, "b/c", true}, {"a/b/c", 2, "c", true}, {"a/b/c", 3, "", false}, {"a", 1, "", false}, {".", 1, "", false}} {
		if got, ok := strip(c.name, c.n); got != c.want || ok != c.ok {
			t.Errorf("strip(%q, %d) = %q, %v", c.name, c.n, got, ok)
		}
	}
}

func TestGuess(t *testing.T) {
	for name, want := range map[string][2]string{
		"/a/x.tar.gz": {"tar.gz", "x"}, "x.TGZ": {"tar.gz", "x"}, "x.tar.zst": {"tar.zst", "x"}, "x.gz": {"gz", "x"}, "x.zip": {"zip", "x"},
		"x": {"raw", "x"}, "x.sh": {"raw", "x.sh"}, ".gz": {"raw", ".gz"}, "x.tar": {"tar", "x"}, "x-1.2.3": {"raw", "x-1.2.3"},
	} {
		if f, rest := Guess(name); string(f) != want[0] || rest != want[1] {
			t.Errorf("Guess(%q) = %s, %s", name, f, rest)
		}
	}
}

// TestSourceErrorIsPassedOn: a connection that breaks is not the archive's
// fault, in whichever format it breaks.
func TestSourceErrorIsPassedOn(t *testing.T) {
	broke := errors.New("the connection broke")
	for _, f := range []Format{Raw, Gz, Xz, Zst, Bz2, Tar, TarGz, TarXz, TarZst, TarBz2} {
		tree, err := NewTree(t.TempDir(), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Stream(iotest.ErrReader(broke), func() {}, Layout{Format: f, Path: "x"}); !errors.Is(err, broke) {
			t.Errorf("%s: %v", f, err)
		}
		_ = tree.Close()
	}
}

// seeds are archives of each format to begin from.
func seeds(f *testing.F) map[Format][]byte {
	var tarball, zipped bytes.Buffer
	w := tar.NewWriter(&tarball)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/a", Typeflag: tar.TypeReg, Size: 1, Mode: 0o4755},
		{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d/a"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "d/a"},
		{Name: "../x", Typeflag: tar.TypeReg}, {Name: "/x", Typeflag: tar.TypeReg}, {Name: "l/x", Typeflag: tar.TypeReg},
		{Name: "f", Typeflag: tar.TypeFifo}, {Name: "c", Typeflag: tar.TypeChar},
	} {
		// Each on its own, too: the first that is refused ends an archive.
		var one bytes.Buffer
		ow := tar.NewWriter(&one)
		for _, w := range []*tar.Writer{w, ow} {
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			_, _ = w.Write(make([]byte, h.Size))
		}
		_ = ow.Close()
		f.Add(uint8(0), one.Bytes())
	}
	_ = w.Close()
	z := zip.NewWriter(&zipped)
	for _, name := range []string{"a", "d/b", "../x"} {
		e, err := z.Create(name)
		if err != nil {
			f.Fatal(err)
		}
		_, _ = e.Write([]byte(name))
	}
	_ = z.Close()
	var g bytes.Buffer
	gw := gzip.NewWriter(&g)
	_, _ = gw.Write(tarball.Bytes())
	_ = gw.Close()
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	return map[Format][]byte{Tar: tarball.Bytes(), Zip: zipped.Bytes(), TarGz: g.Bytes(), TarZst: zw.EncodeAll(tarball.Bytes(), nil)}
}

// FuzzUnpack: whatever comes, nothing is made outside the folder, nothing but
// files, folders and links that stay inside is made in it, what is there is
// what is listed, and no bound is passed.
func FuzzUnpack(f *testing.F) {
	formats := []Format{Tar, Zip, TarGz, TarZst, Gz, Zst, TarBz2, Raw}
	for format, content := range seeds(f) {
		for i, known := range formats {
			if known == format {
				f.Add(uint8(i), content)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		limits := Limits{Bytes: 1 << 20, Files: 50, Ratio: 100, RatioFrom: 1 << 16}
		tree, err := NewTree(dir, limits)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		l := Layout{Format: formats[int(which)%len(formats)], Path: "p", Strip: int(which) / 128}
		if l.Format == Zip {
			err = tree.Zip(bytes.NewReader(content), int64(len(content)), l)
		} else {
			err = tree.Stream(bytes.NewReader(content), func() {}, l)
		}
		list, rerr := os.ReadDir(outer)
		if rerr != nil || len(list) != 1 {
			t.Fatalf("made outside: %v, %v", list, rerr)
		}
		inspect(t, dir, tree.Files(), limits, err == nil)
	})
}

// inspect holds a folder against what is said to be in it.
func inspect(t *testing.T, dir string, files []store.File, limits Limits, complete bool) {
	known := map[string]store.File{}
	for _, f := range files {
		known[f.Path] = f
	}
	if len(files) > limits.Files {
		t.Errorf("%d files", len(files))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	seen, sum := 0, int64(0)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		seen++
		name := path[len(dir)+1:]
		f, ok := known[name]
		info, err := d.Info()
		if err != nil || !ok {
			t.Errorf("%q is there and not listed (%v)", name, err)
			return err
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
			t.Errorf("%q has mode %v", name, info.Mode())
		}
		switch info.Mode().Type() {
		case 0:
			sum += info.Size()
			if complete {
				same(t, path, f, info)
			}
		case fs.ModeDir:
		case fs.ModeSymlink:
			// The standard library's own judge: it fails if the way leads out.
			if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "too many") {
				t.Errorf("link %q: %v", name, err)
			}
		default:
			t.Errorf("%q is a %v", name, info.Mode())
		}
		return nil
	})
	if err != nil || complete && seen != len(files) {
		t.Errorf("%d of %d files are there, %v", seen, len(files), err)
	}
	// A last write may be under way when the bound is seen; hard links count
	// again.
	if sum > limits.Bytes*int64(limits.Files) {
		t.Errorf("%d bytes", sum)
	}
}

func same(t *testing.T, path string, f store.File, info fs.FileInfo) {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 || info.Size() != f.Size || info.Mode() != f.Mode {
		t.Errorf("%s: %v, %d bytes; listed as %+v", path, info.Mode(), info.Size(), f)
	}
}
