package fetch

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// BenchmarkCold fetches a tarball of some 20 MB unpacked over loopback HTTP
// into an empty store, as often as asked. Beside it: the same by hand, with
// nothing checked, confined, hashed or synced (tar and gzip of the standard
// library to files).
func BenchmarkCold(b *testing.B) {
	content := tarball(b)
	b.Run("fetch", func(b *testing.B) {
		var phases Phases
		bn := newBench(b, func(o *Options) { o.Store = storeAt(b, b.TempDir()) })
		url := bn.serve("/x.tar.gz", content)
		a := []Artifact{{URL: url, SHA256: digest(content)}}
		b.SetBytes(int64(len(content)))
		b.ResetTimer()
		for range b.N {
			e, r, err := bn.Get(context.Background(), a, nil)
			if err != nil {
				b.Fatal(err)
			}
			phases = r.Phases
			b.StopTimer()
			if err := bn.opts.Store.Remove(e.Digest); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.Logf("%+v", phases)
	})
	b.Run("by hand", func(b *testing.B) {
		bn := newBench(b, func(o *Options) { o.Store = storeAt(b, b.TempDir()) })
		url, dir := bn.serve("/x.tar.gz", content), b.TempDir()
		b.SetBytes(int64(len(content)))
		for range b.N {
			if err := byHand(url, filepath.Join(dir, "x")); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func storeAt(b *testing.B, dir string) *store.Store {
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func byHand(url, path string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, z) // one file: tar's headers are nothing
	return err
}

// tarball holds something that packs as a program does: two to one.
func tarball(b testing.TB) []byte {
	body := make([]byte, 20<<20)
	noise := random(len(body) / 2)
	for i := range len(noise) / 8 {
		copy(body[i*16:], noise[i*8:i*8+8])
		binary.LittleEndian.PutUint64(body[i*16+8:], uint64(i/64))
	}
	return gz(b, tarOf(b, member{name: "node_exporter-1/node_exporter", body: string(body), mode: 0o755}, member{name: "node_exporter-1/LICENSE", body: "x"}))
}
