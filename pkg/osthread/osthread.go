// Package osthread runs functions on a thread of the system that is theirs alone.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on a thread that is thrown away afterwards, with all that f did to
// it: its root, its namespaces, its credentials, what a Go program takes to be
// the same everywhere. It costs the making of one thread (BenchmarkRun: some
// 70 µs).
//
// It is never the process's first thread. That one cannot be thrown away, and
// /proc/self, where the whole process reads its mounts and sockets, is that
// thread's: it is held until another was found.
func Run(f func() error) error {
	done := make(chan error, 1)
	var run func()
	run = func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			other := make(chan struct{})
			go func() { defer close(other); run() }()
			<-other
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}
	go run()
	return <-done
}
