package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestProgramPages(t *testing.T) {
	const line = "00400000-0154e000 r-xp 00001000 fe:00 1234                       /usr/bin/nodeagent"
	from, size, ok := programPages(line, "/usr/bin/nodeagent")
	if !ok || from != 0x400000 || size != 0x114e000 {
		t.Errorf("%x %x %v", from, size, ok)
	}
	for _, no := range []string{
		"", strings.Replace(line, "r-xp", "rw-p", 1), strings.Replace(line, "bin/nodeagent", "bin/other", 1),
		"7f0000000000-7f0000001000 r--p 00000000 00:00 0", "x-y r-xp 0 0 0 /usr/bin/nodeagent",
	} {
		if _, _, ok := programPages(no, "/usr/bin/nodeagent"); ok {
			t.Errorf("%q is taken", no)
		}
	}
}

// TestDropProgramPages: less of the program is in memory, and it runs on.
func TestDropProgramPages(t *testing.T) {
	before := residentFile(t)
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after >= before {
		t.Errorf("%d pages before, %d after", before, after)
	}
}

// residentFile is RssFile in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "RssFile:")
	var kb int
	for _, c := range strings.TrimSpace(rest) {
		if c < '0' || c > '9' {
			break
		}
		kb = 10*kb + int(c-'0')
	}
	return kb
}

// TestUnchanged: pages that relocations have changed are the process's own,
// though it may not write to them any more.
func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00401000 r--p 00000000 fe:00 12 /bin/agent
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00401000-00402000 r--p 00001000 fe:00 12 /bin/agent
Rss:                   4 kB
Anonymous:             4 kB
00402000-00403000 rw-p 00002000 fe:00 12 /bin/agent
Anonymous:             0 kB
00403000-00405000 r-xp 00003000 fe:00 12 /bin/agent
Anonymous:             0 kB
7f000000-7f001000 r--p 00000000 fe:00 13 /lib/other
Anonymous:             0 kB
`
	got := unchanged(smaps, "/bin/agent")
	want := []span{{0x400000, 0x1000}, {0x403000, 0x2000}}
	if !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
