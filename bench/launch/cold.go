package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
	"github.com/nodeagent/nodeagent/test/tarball"
)

// cold goes from a URL to a listening node_exporter, Debian's own in a tar.gz
// over loopback, with an empty store each time: fetched, verified, unpacked,
// stored, shut in. By hand it is curl, tar and a bare start. In turn.
func (b *bench) cold(ctx context.Context, rounds int) ([]report.Row, error) {
	program := os.Getenv("NODEAGENT_TEST_NODE_EXPORTER")
	if program == "" {
		fmt.Println("left out: cold, as NODEAGENT_TEST_NODE_EXPORTER names no node_exporter (make bench-launch does)")
		return nil, nil
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	packed, err := tarball.Pack("node_exporter-1.5.0", tarball.File{Name: "node_exporter", Content: content})
	if err != nil {
		return nil, err
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "node_exporter.tar.gz", time.Time{}, bytes.NewReader(packed))
	}))
	defer srv.Close()
	url, sum := srv.URL+"/node_exporter-1.5.0.linux-amd64.tar.gz", sha256.Sum256(packed)
	var ours, byHand []time.Duration
	for range rounds {
		d, err := b.fromURL(ctx, url, hex.EncodeToString(sum[:]))
		if err != nil {
			return nil, err
		}
		ours = append(ours, d)
		if d, err = b.byHand(ctx, url); err != nil {
			return nil, err
		}
		byHand = append(byHand, d)
	}
	p50, peer := ms(percentile(ours, 50)), ms(percentile(byHand, 50))
	name := fmt.Sprintf("cold, node_exporter (%d MiB as tar.gz over loopback) from URL to listening, p50", len(packed)>>20)
	return []report.Row{
		report.Alone(name, "ms", p50).Promise("< 250 ms", p50 < 250),
		report.Beside(name, "ms", p50, "curl, tar, bare start", peer).RatioAtMost(1.5),
	}, nil
}

func (b *bench) fromURL(ctx context.Context, url, digest string) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.folder, "store-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	kept, err := store.Open(store.Options{Dir: filepath.Join(dir, "store"), MaxBytes: 1 << 30})
	if err != nil {
		return 0, err
	}
	defer kept.Close()
	fetcher, err := fetch.New(fetch.Options{Store: kept, Executable: self})
	if err != nil {
		return 0, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	entry, _, err := fetcher.Get(ctx, []fetch.Artifact{{URL: url, SHA256: map[string]string{"*": digest}, Strip: 1}}, func(fetch.Progress) {})
	if err != nil {
		return 0, err
	}
	s := b.spec("./node_exporter", "--web.listen-address=127.0.0.1:"+port)
	s.Root, s.Profile = entry.Path, sandbox.HostObserver
	task, _, err := b.launcher.Start(ctx, s)
	if err != nil {
		return 0, err
	}
	took, err := untilListening(ctx, port, begun)
	return took, errors.Join(err, task.Stop(ctx, time.Second), task.Forget(ctx))
}

// byHand is what a person would type.
func (b *bench) byHand(ctx context.Context, url string) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.folder, "by-hand-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	port, err := freePort(ctx)
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-ec", fmt.Sprintf("curl -sf %s | tar -xz --strip-components=1; exec ./node_exporter --web.listen-address=127.0.0.1:%s", url, port))
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	took, err := untilListening(ctx, port, begun)
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait() // it was killed
	if err != nil {
		return 0, fmt.Errorf("by hand: %w: %s", err, said.String())
	}
	return took, nil
}

func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func untilListening(ctx context.Context, port string, begun time.Time) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			return time.Since(begun), conn.Close()
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("nobody listens on port %s: %w", port, err)
		case <-time.After(time.Millisecond):
		}
	}
}
