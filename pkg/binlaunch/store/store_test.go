package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// clock is a store's time, moved by hand.
type clock struct{ now time.Time }

func open(t *testing.T, dir string, set ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: dir, BootID: "one"}
	for _, f := range set {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// put commits a tree: names that end in / are folders, contents that begin
// with -> are links.
func put(s *Store, tree map[string]string) (Entry, error) {
	d, err := s.Begin(0, 0)
	if err != nil {
		return Entry{}, err
	}
	files, parts := make([]File, 0, len(tree)), []string{}
	for path, content := range tree {
		full := filepath.Join(d.Files, path)
		parts = append(parts, path+content)
		if name, ok := strings.CutSuffix(path, "/"); ok {
			err = errors.Join(err, os.MkdirAll(full, 0o755))
			files = append(files, File{Path: name, Type: Folder, Mode: 0o755})
			continue
		}
		err = errors.Join(err, os.MkdirAll(filepath.Dir(full), 0o755))
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = errors.Join(err, os.Symlink(target, full))
			files = append(files, File{Path: path, Type: Link, Target: target})
			continue
		}
		sum := sha256.Sum256([]byte(content))
		err = errors.Join(err, os.WriteFile(full, []byte(content), 0o755))
		files = append(files, File{Path: path, Type: Regular, Mode: 0o755, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])})
	}
	if err != nil {
		return Entry{}, err
	}
	slices.Sort(parts)
	return d.Commit(DigestOf(parts), files)
}

func mustPut(t *testing.T, s *Store, tree map[string]string) Entry {
	t.Helper()
	e, err := put(s, tree)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCommitAndLookup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	e := mustPut(t, s, map[string]string{"x": "binary", "etc/": "", "etc/conf": "a=b", "link": "->x"})
	if got, ok, err := s.Lookup(e.Digest); err != nil || !ok || got.Path != e.Path || len(got.Files) != 4 {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	if b, err := os.ReadFile(filepath.Join(e.Path, "link")); string(b) != "binary" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "second agent") {
		t.Errorf("opened twice: %v", err)
	}
	if _, ok, err := s.Lookup(DigestOf(nil)); ok || err != nil {
		t.Errorf("found what is not there: %v, %v", ok, err)
	}
	if _, _, err := s.Lookup("sha256:../../etc"); err == nil {
		t.Error("a path is taken for a digest")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if _, ok, err := again.Lookup(e.Digest); err != nil || !ok || again.Stats().Verified != 0 {
		t.Errorf("after a restart in the same boot: %v, %v, %+v", ok, err, again.Stats())
	}
}

// TestCommitRefuses what is not as it was told: whoever fills a draft is not
// trusted.
func TestCommitRefuses(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"a file more":  func(dir string) error { return os.WriteFile(dir+"/more", nil, 0o755) },
		"a file less":  func(dir string) error { return os.Remove(dir + "/x") },
		"another size": func(dir string) error { return os.WriteFile(dir+"/x", []byte("longer than before"), 0o755) },
		"a setuid bit": func(dir string) error { return os.Chmod(dir+"/x", 0o755|os.ModeSetuid) },
		"a FIFO":       func(dir string) error { return errors.Join(os.Remove(dir+"/x"), unix.Mkfifo(dir+"/x", 0o755)) },
		"a socket": func(dir string) error {
			return errors.Join(os.Remove(dir+"/x"), unix.Mknod(dir+"/x", unix.S_IFSOCK|0o755, 0))
		},
		"a link instead": func(dir string) error { return errors.Join(os.Remove(dir+"/x"), os.Symlink("/etc/passwd", dir+"/x")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			d, err := s.Begin(64101, 64101)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256([]byte("x"))
			if err := errors.Join(os.WriteFile(d.Files+"/x", []byte("x"), 0o755), spoil(d.Files)); err != nil {
				t.Fatal(err)
			}
			_, err = d.Commit(DigestOf(nil), []File{{Path: "x", Type: Regular, Mode: 0o755, Size: 1, SHA256: hex.EncodeToString(sum[:])}})
			var changed *ChangedError
			if !errors.As(err, &changed) {
				t.Errorf("error is %v", err)
			}
			whole(t, s, 0)
		})
	}
}

// whole reads every entry in full, and fails if there are fewer or anything
// lies around.
func whole(t *testing.T, s *Store, least int) {
	t.Helper()
	if left, err := os.ReadDir(s.path("tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	list, err := os.ReadDir(s.path("entries"))
	for _, e := range list {
		if inside, err := os.ReadDir(s.path("entries", e.Name())); err != nil || len(inside) != 3 {
			t.Errorf("in entry %s: %v, %v", e.Name(), inside, err)
		}
	}
	if err != nil || len(list) < least {
		t.Errorf("%d entries, %v; want %d or more", len(list), err, least)
	}
	for _, e := range list {
		m, err := readManifest(s.path("entries", e.Name(), "entry.json"))
		if err == nil {
			err = check(s.path("entries", e.Name(), "files"), m.Files)
		}
		if err != nil || scheme+e.Name() != m.Digest {
			t.Errorf("entry %s: %v", e.Name(), err)
		}
	}
}

// TestTamperedAfterReboot: whatever was done to an entry while the node was
// down is found before it is used.
func TestTamperedAfterReboot(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func(path string) error
		found  bool
	}{
		"nothing": {func(string) error { return nil }, true},
		"content": {func(path string) error {
			return sameTimes(path+"/x", func() error { return os.WriteFile(path+"/x", []byte("BINARY"), 0o755) })
		}, false},
		"mode":            {func(path string) error { return os.Chmod(path+"/x", 0o755|os.ModeSetuid) }, false},
		"missing":         {func(path string) error { return os.Remove(path + "/x") }, false},
		"more":            {func(path string) error { return os.WriteFile(path+"/y", nil, 0o755) }, false},
		"link":            {func(path string) error { return errors.Join(os.Remove(path+"/link"), os.Symlink("/etc", path+"/link")) }, false},
		"rotten manifest": {func(path string) error { return os.WriteFile(path+"/../entry.json", []byte("{"), 0o644) }, false},
	} {
		for _, boot := range []string{"one", "two"} {
			t.Run(name+" boot "+boot, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				e := mustPut(t, s, map[string]string{"x": "binary", "link": "->x"})
				if err := errors.Join(s.Close(), c.tamper(e.Path)); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir, func(o *Options) { o.BootID = boot })
				_, found, err := s.Lookup(e.Digest)
				if err != nil || found != c.found {
					t.Errorf("found %v, %v; want %v", found, err, c.found)
				}
				if st := s.Stats(); boot == "two" && found && st.Verified != 1 {
					t.Errorf("was not read in full: %+v", st)
				}
				if found {
					if _, found, _ = s.Lookup(e.Digest); !found || s.Stats().Verified > 1 {
						t.Errorf("read again: %+v", s.Stats())
					}
					return
				}
				if _, err := os.Stat(e.Path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("is still there: %v", err)
				}
				mustPut(t, s, map[string]string{"x": "binary", "link": "->x"})
			})
		}
	}
}

// sameTimes hides a change as far as a process can: size and mtime are as
// before.
func sameTimes(path string, change func() error) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(change(), os.Chtimes(path, st.ModTime(), st.ModTime()))
}

func TestEviction(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Unix(1e9, 0)}
	big := strings.Repeat("x", 100_000)
	set := func(o *Options) { o.MaxBytes, o.Grace, o.Now = 400_000, time.Minute, func() time.Time { return c.now } }
	s := open(t, dir, set)
	entries := map[string]Entry{}
	for _, name := range []string{"a", "b", "c"} {
		entries[name] = mustPut(t, s, map[string]string{name: big})
		c.now = c.now.Add(2 * time.Minute)
	}
	if err := s.Lease(entries["a"].Digest, "task/1"); err != nil {
		t.Fatal(err)
	}
	has := func(want string) {
		t.Helper()
		got := ""
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			if e, ok := entries[name]; ok && s.Has(e.Digest) {
				got += name
			}
		}
		if got != want {
			t.Errorf("has %s, want %s", got, want)
		}
	}
	entries["d"] = mustPut(t, s, map[string]string{"d": big})
	has("acd") // a is the oldest, and leased
	// The lease outlives the process; c was used since.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(2 * time.Minute)
	s = open(t, dir, set)
	if _, ok, err := s.Lookup(entries["c"].Digest); !ok || err != nil {
		t.Fatal(ok, err)
	}
	c.now = c.now.Add(2 * time.Minute)
	entries["e"] = mustPut(t, s, map[string]string{"e": big})
	has("ace")
	// All that is there was leased or handed out a moment ago.
	if _, _, err := s.Lookup(entries["c"].Digest); err != nil {
		t.Fatal(err)
	}
	_, err := put(s, map[string]string{"f": big})
	var full *FullError
	if !errors.As(err, &full) {
		t.Errorf("error is %v", err)
	}
	has("ace")
	whole(t, s, 3)
	if got := s.Leases(); !slices.Equal(got, []Lease{{entries["a"].Digest, "task/1"}}) {
		t.Errorf("leases %v", got)
	}
	if err := s.Remove(entries["a"].Digest); err == nil {
		t.Error("removed what is in use")
	}
	if err := s.Release(entries["a"].Digest, "task/1"); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(2 * time.Minute)
	entries["f"] = mustPut(t, s, map[string]string{"f": big})
	has("cef")
	if st := s.Stats(); st.Bytes > 400_000 || st.Entries != 3 || st.Evicted != 2 {
		t.Errorf("%+v", st)
	}
}

func TestVictims(t *testing.T) {
	for _, c := range []struct {
		name      string
		all       []candidate
		need, max int64
		want      string
		ok        bool
	}{
		{"empty store", nil, 10, 10, "", true},
		{"too large for any store", nil, 11, 10, "", false},
		{"fits", []candidate{{"a", 5, 1, false}}, 5, 10, "", true},
		{"oldest first", []candidate{{"a", 5, 2, false}, {"b", 5, 1, false}}, 5, 10, "b", true},
		{"both", []candidate{{"a", 5, 2, false}, {"b", 5, 1, false}}, 6, 10, "b a", true},
		{"kept stays", []candidate{{"a", 5, 2, false}, {"b", 5, 1, true}}, 5, 10, "a", true},
		{"kept is in the way", []candidate{{"a", 5, 2, false}, {"b", 5, 1, true}}, 6, 10, "a", false},
		{"the bound was lowered", []candidate{{"a", 50, 2, false}, {"b", 5, 1, false}}, 1, 10, "b a", true},
	} {
		got, ok := victims(c.all, c.need, c.max)
		if strings.Join(got, " ") != c.want || ok != c.ok {
			t.Errorf("%s: %v, %v; want %s, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// TestFullDisk: what is there can be used and released, and what does not fit
// leaves nothing.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, dir)
	e := mustPut(t, s, map[string]string{"x": "binary"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, func(o *Options) { o.BootID = "two" })
	fill, err := os.Create(dir + "/fill")
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	_ = fill.Close()
	if _, err := put(s, map[string]string{"y": strings.Repeat("y", 10000)}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	if _, ok, err := s.Lookup(e.Digest); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if err := s.Remove(e.Digest); err != nil {
		t.Error(err)
	}
	if err := os.Remove(dir + "/fill"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, map[string]string{"y": strings.Repeat("y", 10000)})
}

// writeUntilKilled is a process that puts entries into a store that is too
// small for them, so that it takes away as often as it puts.
func writeUntilKilled(dir string) {
	s, err := Open(Options{Dir: dir, MaxBytes: 1 << 20, Grace: 1, BootID: "one"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		tree := map[string]string{"dir/": ""}
		for n := range 1 + i%7 {
			tree[fmt.Sprintf("dir/%d", n)] = fmt.Sprint(os.Getpid(), i, strings.Repeat("x", i*7919%90_000))
		}
		e, err := put(s, tree)
		if err == nil && i%3 == 0 {
			_, _, err = s.Lookup(e.Digest)
		}
		if err == nil && i%5 == 0 {
			err = errors.Join(s.Lease(e.Digest, "task"), s.Release(e.Digest, "task"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
