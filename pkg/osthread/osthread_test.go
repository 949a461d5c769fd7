package osthread

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What f does to its thread is seen by nobody else, and least of all at
// /proc/self. Each thread that ends leaves it to the others to run what is left,
// the first among them.
func TestRunIsNeverTheFirstThread(t *testing.T) {
	const link = "/proc/self/ns/uts"
	before, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		err := Run(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("runs on the process's first thread")
			}
			return unix.Unshare(unix.CLONE_NEWUTS)
		})
		if err != nil {
			t.Fatal(err)
		}
		if after, err := os.Readlink(link); err != nil || after != before {
			t.Fatalf("the process is in %s, was in %s: %v", after, before, err)
		}
	}
}

// BenchmarkRun is what a thread of one's own costs.
func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		if err := Run(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRunHandsItsErrorOn(t *testing.T) {
	want := errors.New("so it is")
	if err := Run(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
