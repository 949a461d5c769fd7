package pull

import (
	"fmt"
	"io"
	"time"
)

// stallError says that a server sends too slowly to ever be done.
type stallError struct {
	window time.Duration
	bytes  int64
}

func (e *stallError) Error() string {
	return fmt.Sprintf("the server sent %d bytes in %v", e.bytes, e.window)
}

// stallReader ends a read when fewer than rate bytes a second come in a window
// of waiting. The time that the reader itself takes between reads does not
// count.
type stallReader struct {
	r      io.Reader
	cancel func() // ends a read that waits
	window time.Duration
	rate   int64

	waited time.Duration
	bytes  int64
}

func (s *stallReader) Read(p []byte) (int, error) {
	need := s.rate * int64(s.window/time.Second)
	patience := s.window - s.waited
	if s.bytes >= need { // this window is fulfilled: the read may take all of the next
		patience += s.window
	}
	start := time.Now()
	timer := time.AfterFunc(patience, s.cancel)
	n, err := s.r.Read(p)
	fired := !timer.Stop()
	s.waited += time.Since(start)
	s.bytes += int64(n)
	if fired || s.waited >= s.window && s.bytes < need {
		return n, &stallError{window: s.window, bytes: s.bytes}
	}
	if s.waited >= s.window {
		s.waited, s.bytes = 0, 0
	}
	return n, err
}
