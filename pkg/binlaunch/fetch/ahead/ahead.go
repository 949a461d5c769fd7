// Package ahead lets the stages of a stream work at once: what is behind a
// Reader reads in a goroutine of its own, a bounded number of bytes before they
// are asked for. So the network, the decompressor and the disk each keep a core
// busy, where a chain of plain readers keeps one.
package ahead

import "io"

const (
	chunk  = 256 << 10 // bytes
	queued = 8         // chunks
)

// Reader is a stream that is read ahead, up to 2 MiB.
type Reader struct {
	full, free chan []byte
	stop, done chan struct{}
	cur, rest  []byte
	err        error // set before full is closed
}

// New begins to read r. Its owner closes it.
func New(r io.Reader) *Reader {
	a := &Reader{
		full: make(chan []byte, queued+1), free: make(chan []byte, queued+1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range queued + 1 {
		a.free <- nil // made when first used: most artifacts are small
	}
	go a.run(r)
	return a
}

func (a *Reader) run(r io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, chunk)
		}
		n, err := r.Read(buf[:chunk])
		if n > 0 {
			a.full <- buf[:n] // never waits: there are no more chunks than places
		} else {
			a.free <- buf
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

// Read hands out what was read, then r's error.
func (a *Reader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur != nil {
			a.free <- a.cur[:0:cap(a.cur)]
			a.cur = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.cur, a.rest = buf, buf
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the goroutine and waits for it. What r waits for must be ended by
// whoever owns r.
func (a *Reader) Close() {
	close(a.stop)
	<-a.done
}
