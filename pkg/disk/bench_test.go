//go:build linux

package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkWalk200k is one full walk of 200,000 files in 200 folders, and du's
// beside it on the same warm tree.
func BenchmarkWalk200k(b *testing.B) {
	dir := b.TempDir()
	for i := range 200 {
		sub := filepath.Join(dir, fmt.Sprint(i))
		must(b, os.Mkdir(sub, 0o755))
		for j := range 1000 {
			must(b, os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d", j)), nil, 0o644))
		}
	}
	b.Run("walk", func(b *testing.B) {
		w := NewWalker("/")
		b.ReportAllocs()
		for b.Loop() {
			_, err := w.Measure(b.Context(), layerAt(dir))
			must(b, err)
		}
	})
	b.Run("du", func(b *testing.B) {
		for b.Loop() {
			must(b, exec.Command("du", "-s", "-x", "--block-size=1", dir).Run())
		}
	})
}

// BenchmarkWalkSmall is a look at the layer of an idle container.
func BenchmarkWalkSmall(b *testing.B) {
	dir := b.TempDir()
	for i := range 10 {
		write(b, filepath.Join(dir, fmt.Sprint("d", i%3), fmt.Sprint(i)), 4096)
	}
	w := NewWalker("/")
	b.ReportAllocs()
	for b.Loop() {
		_, err := w.Measure(b.Context(), layerAt(dir))
		must(b, err)
	}
}
