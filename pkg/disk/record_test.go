//go:build linux

package disk

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// recording runs a watcher for a while, and returns the file that it
// recorded with all offences that it told, one for each look at an offender.
func recording(t *testing.T, o Options, limit int64, span time.Duration) (file string, told []Verdict, log string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "samples.jsonl.gz")
	var text bytes.Buffer
	r, err := NewRecorder(file, limit, slog.New(slog.NewTextHandler(&text, nil)))
	must(t, err)
	o.Recorder, o.Repeat = r, time.Nanosecond
	w, err := NewWatcher(o)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { must(t, w.Run(ctx)) })
	wg.Go(func() { must(t, r.Run(ctx)) })
	wg.Go(func() {
		for v := range w.Offences() {
			told = append(told, v)
		}
	})
	pass(span)
	cancel()
	wg.Wait()
	return file, told, text.String()
}

func openReplay(t *testing.T, file string) *Replay {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	p, err := NewReplay(f)
	must(t, err)
	return p
}

func replayAll(t *testing.T, p *Replay) (all []Verdict, err error) {
	t.Helper()
	for {
		v, err := p.Next()
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
}

// known is what a verdict says, but for what a recording leaves out of a
// container.
func known(v Verdict) Verdict {
	c := v.Container
	v.Container = runtime.Container{ID: c.ID, Namespace: c.Namespace, Name: c.Name, Pod: c.Pod, Sandbox: c.Sandbox}
	v.At, v.Since = v.At.UTC().Round(0), v.Since.UTC().Round(0)
	return v
}

// TestReplayMakesTheSameVerdicts: a leak, a rotation, two containers of a pod
// that share an emptyDir under the pod's limit, one that goes, a sandbox.
func TestReplayMakesTheSameVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, holds(func(s float64) float64 { return 10 + 20*max(0, s-60) }))
		s.add(container("logs", "u-2", "app", "l"), holds(func(s float64) float64 { return 70 + float64(int(20*s)%1500) }))
		shared := runtime.Mount{Source: "/kubelet/pods/u-3/volumes/kubernetes.io~empty-dir/tmp", Destination: "/tmp"}
		for _, name := range []string{"one", "two"} {
			c := container("pair", "u-3", name, name)
			c.Mounts = []runtime.Mount{shared}
			s.add(c, still(3))
		}
		s.looks[shared.Source] = holds(func(s float64) float64 { return s })
		s.add(container("brief", "u-4", "app", "b"), still(1))
		pause := container("logs", "u-2", "", "pause")
		pause.Sandbox = true
		s.add(pause, still(0))
		o := s.options(t)
		o.Node = "node-1"
		o.Limits = limitsOf{"u-3": {Pod: 300 * mib, Containers: map[string]int64{"one": 200 * mib}}}
		go func() {
			time.Sleep(50 * time.Second)
			s.remove("b")
			c := container("brief", "u-4", "app", "b2")
			s.add(c, holds(func(s float64) float64 { return 100 + 30*(s-50) }))
		}()
		o.Policy.Filesystems = map[string]Reserves{"/data": {Bytes: Reserve{Percent: 10}, Inodes: Reserve{Amount: 1000}}}
		file, told, log := recording(t, o, 8<<20, 4*time.Minute)
		if log != "" {
			t.Errorf("log:\n%s", log)
		}
		p := openReplay(t, file)
		if p.Node != "node-1" || !reflect.DeepEqual(p.Policy(), o.Policy) {
			t.Errorf("recorded on %s by %+v", p.Node, p.Policy())
		}
		all, err := replayAll(t, p)
		if !errors.Is(err, io.EOF) || p.End != "the agent ended" {
			t.Fatalf("ended with %v, %q", err, p.End)
		}
		var again []Verdict
		offenders := map[string]bool{}
		last := map[string]time.Time{}
		for _, v := range all {
			id := v.Container.ID
			if v.Offender && !v.At.Equal(last[id]) { // of several at one time the watcher tells one
				last[id] = v.At
				again = append(again, v)
				offenders[id] = true
			}
		}
		if len(offenders) < 4 || len(all) < len(again)+100 {
			t.Errorf("only %v became offenders, in %d of %d verdicts", offenders, len(again), len(all))
		}
		if len(again) != len(told) {
			t.Fatalf("%d offences again of %d", len(again), len(told))
		}
		for i := range told {
			if want, got := known(told[i]), known(again[i]); !reflect.DeepEqual(want, got) {
				t.Fatalf("offence %d again\n%+v\nwas\n%+v", i, got, want)
			}
		}
	})
}

// TestRecordingIsBounded: it ends at its limit and says so, and the agent goes
// on watching; what was recorded can be replayed.
func TestRecordingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		for i := range 50 {
			s.add(container("p", fmt.Sprint("u-", i), "app", fmt.Sprint(i)), holds(func(s float64) float64 { return 3 * s * float64(i) }))
		}
		const limit = 64 << 10
		file, told, log := recording(t, s.options(t), limit, 3*time.Minute)
		info, err := os.Stat(file)
		must(t, err)
		if info.Size() > limit || info.Size() < limit*3/4 {
			t.Errorf("it has %d bytes of %d", info.Size(), limit)
		}
		if !strings.Contains(log, "recording stops; watching goes on") || !strings.Contains(log, "its limit is reached") {
			t.Errorf("log:\n%s", log)
		}
		if len(told) < 100 {
			t.Errorf("only %d offences were told: watching did not go on", len(told))
		}
		p := openReplay(t, file)
		all, err := replayAll(t, p)
		if !errors.Is(err, io.EOF) || p.End != "the limit is reached" || len(all) < 100 {
			t.Errorf("%d verdicts, ended with %v, %q", len(all), err, p.End)
		}
	})
}

// TestRecordingOnAFullDisk: the file system that is recorded to has no room,
// as the node's disk at the moment that matters.
func TestRecordingOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	must(t, syscall.Mount("small", dir, "tmpfs", 0, "size=64k"))
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	var log bytes.Buffer
	file := filepath.Join(dir, "samples.jsonl.gz")
	r, err := NewRecorder(file, 1<<30, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.head("node-1", DefaultPolicy(), epoch)
	h := hold{place: &place{id: placeID{part: PartLayer}, fs: &filesystem{mount: "/"}}}
	tr := &track{container: app, holds: []hold{h}}
	x := uint64(1)
	for i := 0; !r.ended.Load(); i++ {
		x ^= x << 13 // noise, which does not compress
		x ^= x >> 7
		h.place.at = epoch.Add(time.Duration(i) * time.Second)
		h.place.usage.Bytes = int64(x >> 1)
		r.judged(tr, h.place.at, Limits{})
		for len(r.lines) > recordWaiting/2 && !r.ended.Load() {
			time.Sleep(time.Millisecond)
		}
	}
	r.judged(tr, epoch, Limits{}) // is ignored
	cancel()
	must(t, <-done)
	if !strings.Contains(log.String(), "no space left on device") {
		t.Errorf("log:\n%s", log.String())
	}
	all, err := replayAll(t, openReplay(t, file))
	if !errors.Is(err, ErrCutShort) || len(all) < 100 {
		t.Errorf("%d verdicts, then %v", len(all), err)
	}
}

func TestRecorderKeepsTheOneBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "samples")
	must(t, os.WriteFile(file, []byte("before"), 0o600))
	r, err := NewRecorder(file, 1<<20, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.file.Close())
	if text, err := os.ReadFile(file + ".1"); err != nil || string(text) != "before" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := NewRecorder(file, 100, nil); err == nil {
		t.Error("a limit of 100 bytes is taken")
	}
	if _, err := NewRecorder(filepath.Join(file, "x"), 1<<20, nil); err == nil {
		t.Error("a file is taken as a folder")
	}
}

func TestReplayRefuses(t *testing.T) {
	const head = `{"head":{"format":"nodeagent-samples","version":1,"began":"2026-01-02T03:04:05Z","policy":{"reserve":{},"inodeReserve":{},"horizonSeconds":60,"sustainSeconds":5}}}` + "\n"
	cut := func(n int) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, head)
		_ = z.Flush()
		_, _ = io.WriteString(z, head)
		_ = z.Close()
		return b.String()[:b.Len()-n]
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":           {"", "cut short"},
		"no recording":      {"hello\n", "line 1: invalid character"},
		"another's JSON":    {`{"a":1}`, "does not begin as one of nodeagent's"},
		"a later version":   {strings.Replace(head, `"version":1`, `"version":7`, 1), "it has version 7 of the format, this program knows 1"},
		"no policy":         {strings.Replace(head, `"horizonSeconds":60`, `"horizonSeconds":0`, 1), "horizon must be above 0"},
		"unknown container": {head + `{"judged":{"container":"k8s.io/x","at":"2026-01-02T03:04:05Z"}}`, "line 2: nothing was said of the container k8s.io/x"},
		"wrong key":         {head + `{"container":{"key":"a/b","namespace":"a","id":"c","places":[]}}`, "has the key a/b"},
		"unknown place":     {head + `{"container":{"key":"a/b","namespace":"a","id":"b","places":[]}}` + "\n" + `{"judged":{"container":"a/b","at":"2026-01-02T03:04:05Z","looks":[{"place":9}]}}`, "nothing was said of the place 9"},
		"no look":           {head + `{"container":{"key":"a/b","namespace":"a","id":"b","places":[{"place":1,"part":"layer"}]}}` + "\n" + `{"judged":{"container":"a/b","at":"2026-01-02T03:04:05Z"}}`, "no look at the container a/b"},
		"an endless line":   {head + strings.Repeat(" ", maxRecordLine+1), "token too long"},
		"no last line":      {head, "cut short after line 1"},
		"half a line":       {head + `{"gone":"a/`, "cut short after line 1"},
		"half a stream":     {cut(12), "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewReplay(strings.NewReader(c.text))
			for err == nil {
				_, err = p.Next()
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q", err, c.want)
			}
		})
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"container":{"key":"a/b","namespace":"a","id":"b","places":[{"place":1,"part":"layer"}]}}
{"judged":{"container":"a/b","at":"2026-01-02T03:04:05Z","looks":[{"place":1,"at":"2026-01-02T03:04:05Z","mount":"/","bytes":5}],"filesystems":{"/":{"size":9}}}}
{"gone":"a/b"}
{"end":"x"}`))
	head, err := json.Marshal(recordLine{Head: &recordHead{Format: recordFormat, Version: recordVersion, Policy: recordPolicyOf(DefaultPolicy())}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, body []byte) {
		p, err := NewReplay(bytes.NewReader(append(append(bytes.Clone(head), '\n'), body...)))
		for err == nil {
			_, err = p.Next()
		}
	})
}
