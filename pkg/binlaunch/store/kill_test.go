package store

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/powercut"
)

// TestKilledAtAnyByte kills a process that writes the store at random moments,
// and finds the store whole each time.
func TestKilledAtAnyByte(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a process a hundred times")
	}
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	swept, most := 0, 0
	for range 100 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_WRITER="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = bufio.NewReader(out).ReadString('\n')
		time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Millisecond)))) // the moment is the test's matter
		if killErr := cmd.Process.Kill(); err != nil || killErr != nil {
			t.Fatalf("%v, %v: %s", err, killErr, stderr.String())
		}
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Fatalf("the writer failed: %s", stderr.String())
		}
		s, err := Open(Options{Dir: dir, BootID: "one"})
		if err != nil {
			t.Fatal(err)
		}
		whole(t, s, 0)
		swept += s.Stats().Swept
		most = max(most, s.Stats().Entries)
		if st := s.Stats(); st.Bytes > 1<<20 {
			t.Errorf("%d bytes, more than the bound", st.Bytes)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d drafts were swept; %d entries at most", swept, most)
	if swept == 0 || most == 0 {
		t.Error("no kill hit a write: the test shows nothing")
	}
}

// TestPowerCut: what was committed is whole on the disk, at once.
func TestPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a file system of its own")
	}
	for name, files := range map[string]int{"few files": 3, "many files": 2 * syncEach} {
		t.Run(name, func(t *testing.T) {
			disk := powercut.NewDisk(t)
			s := open(t, disk.Path+"/store")
			tree := map[string]string{"dir/": "", "link": "->dir/0"}
			for i := range files {
				tree[fmt.Sprintf("dir/%d", i)] = fmt.Sprint("content ", i)
			}
			e := mustPut(t, s, tree)
			if err := s.Lease(e.Digest, "task"); err != nil {
				t.Fatal(err)
			}
			after := open(t, disk.Cut(t)+"/store", func(o *Options) { o.BootID = "two" })
			whole(t, after, 1)
			if got, ok, err := after.Lookup(e.Digest); err != nil || !ok || len(got.Files) != len(tree) {
				t.Errorf("after a power cut: %v, %v", ok, err)
			}
		})
	}
}
