package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/test/terminal"
)

// TestTopInATerminal uses the real program in a real terminal as a person does:
// sort, filter, files of one container, another size, quit.
func TestTopInATerminal(t *testing.T) {
	soon := 600.0
	path := socketPath(t)
	stop := serveReport(t, path, top.Report{
		Node: "node-1", At: time.Now(),
		Containers: []top.Container{
			{
				Namespace: "shop", Pod: "checkout-7c9f", Container: "app", ID: "k8s.io/1", Bytes: 3 << 30, Inodes: 40, Method: "walk",
				Parts: map[string]int64{"layer": 3 << 30}, Rate: top.Rate{Low: 19e6, Expected: 20e6, High: 21e6}, FullSeconds: &soon,
				Bound: "filesystem", Offender: true, Message: "/app/debug.log in checkout-7c9f/app grew 1.2 GiB",
				Growing: []top.File{{Path: "/app/debug.log", Bytes: 2 << 30, BytesPerSecond: 20e6}, {Path: "/tmp/sessions", Files: 9000, Bytes: 1 << 20, BytesPerSecond: 100}},
			},
			{Namespace: "data", Pod: "archive-0", Container: "db", ID: "k8s.io/2", Bytes: 9 << 30, Inodes: 7, Parts: map[string]int64{"layer": 9 << 30}, Method: "walk"},
		},
		Filesystems: []top.Filesystem{{Mount: "/", Size: 100 << 30, Used: 60 << 30, Reserve: 15 << 30, FullSeconds: &soon}},
	})
	defer stop()
	config := writeConfig(t, "socket: "+path+"\n")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	term, err := terminal.Start(program(t, "top", "--config", config), 130, 24)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := term.Wait(ctx); err != nil {
			t.Error(err)
		}
	}()
	step := func(keys, what string, so func(string) bool) {
		t.Helper()
		if err := term.Type(keys); err != nil {
			t.Fatal(err)
		}
		if err := term.Until(ctx, what, so); err != nil {
			_ = term.Type("\x03")
			t.Fatal(err)
		}
	}
	firstIs := func(first, second string) func(string) bool {
		return func(screen string) bool {
			a, b := strings.Index(screen, first), strings.Index(screen, second)
			return a >= 0 && b > a
		}
	}
	has := func(parts ...string) func(string) bool {
		return func(screen string) bool {
			for _, p := range parts {
				if !strings.Contains(screen, p) {
					return false
				}
			}
			return true
		}
	}
	step("", "the one that is full first on top", firstIs("checkout-7c9f", "archive-0"))
	step("s", "order by growth", has("by growth"))
	step("s", "the largest on top", firstIs("archive-0", "checkout-7c9f"))
	step("/check", "the filter as it is typed", func(screen string) bool {
		return has("filter: check", "checkout-7c9f")(screen) && !strings.Contains(screen, "archive-0")
	})
	step("\r", "the filter kept", has("filter check"))
	step("\r", "the files", has("/app/debug.log", "2.0 GiB", "/tmp/sessions", "9000 files", "grew 1.2 GiB", "10m00s"))
	if err := term.Resize(80, 12); err != nil {
		t.Fatal(err)
	}
	step("\x7f", "the table again, at half its size", func(screen string) bool {
		return has("by size", "checkout-7c9f")(screen) && !strings.Contains(screen, "GROWING")
	})
	step("q", "nothing of it left on the screen", func(screen string) bool { return !strings.Contains(screen, "checkout-7c9f") })
}
