package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseModinfo(t *testing.T) {
	for _, c := range []struct {
		name, info    string
		needs, wishes []string
	}{
		{"none", "license=GPL\x00depends=\x00name=overlay\x00", nil, nil},
		{"needs", "depends=virtio,virtio_ring\x00", []string{"virtio", "virtio_ring"}, nil},
		{"wishes", "softdep=pre: a b post: c\x00softdep=pre: d\x00depends=", nil, []string{"a", "b", "d"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs, wishes := parseModinfo([]byte(c.info))
			if !slices.Equal(needs, c.needs) || !slices.Equal(wishes, c.wishes) {
				t.Errorf("needs %q, wishes %q; want %q, %q", needs, wishes, c.needs, c.wishes)
			}
		})
	}
}

func TestParseLdd(t *testing.T) {
	libs, err := parseLdd("\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n")
	want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}
	if err != nil || !slices.Equal(libs, want) {
		t.Errorf("libraries %q, %v; want %q", libs, err, want)
	}
	if _, err := parseLdd("\tlibx.so => not found\n"); err == nil {
		t.Error("a missing library is no error")
	}
}

func TestDisks(t *testing.T) {
	for _, c := range []struct {
		text string
		size int64
		ok   bool
	}{
		{"tmpfs", 0, true}, {"xfs:1G", 1 << 30, true}, {"ext4:512M", 512 << 20, true},
		{"xfs", 0, false}, {"zfs:1G", 0, false}, {"xfs:-1G", 0, false}, {"xfs:1T", 0, false},
	} {
		var d disks
		if err := d.Set(c.text); (err == nil) != c.ok || c.ok && d[0].size != c.size {
			t.Errorf("%s: %v, error %v", c.text, d, err)
		}
	}
}

// TestArchive has each entry begin where the format wants it, and no file
// without its folders.
func TestArchive(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("12345"), 0o755); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	a, err := newArchive(&buf)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.file("/lib/x/y.so", source); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for at := 0; ; {
		i := bytes.Index(buf.Bytes()[at:], []byte("070701"))
		if i < 0 {
			break
		}
		if at += i; at%4 != 0 {
			t.Errorf("an entry begins at %d", at)
		}
		name, _, _ := strings.Cut(string(buf.Bytes()[at+110:]), "\x00")
		names = append(names, name)
		at += 110
	}
	want := []string{
		"usr", "usr/bin", "bin", "usr/sbin", "sbin", "usr/lib", "lib", "usr/lib64", "lib64",
		"usr/lib/x", "usr/lib/x/y.so", "TRAILER!!!",
	}
	if !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}
