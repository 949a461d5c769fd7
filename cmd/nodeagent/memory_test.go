package main

import (
	"os"
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
