package disk

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	// recordVersion is that of the format; docs/recordings.md describes it.
	recordVersion = 1
	recordFormat  = "nodeagent-samples"

	// recordFlush is how much of a recording a killed agent may lose.
	recordFlush = 2 * time.Second
	// recordEnding is kept free below the limit for the last line.
	recordEnding = 1 << 10
	// recordWaiting bounds the lines that wait for the disk.
	recordWaiting = 4096
)

// Recorder writes down what verdicts are made of, so that they can be made
// again (Replay): one JSON object a line, compressed with gzip. The watcher
// never waits for it: a disk that is full or too slow, or a recording that has
// reached its limit, ends the recording and nothing else. A nil Recorder
// records nothing.
type Recorder struct {
	path  string
	limit int64
	log   *slog.Logger
	file  *os.File
	lines chan []byte
	ended atomic.Bool // nothing more is taken

	// What was recorded last. Of the watcher, under its lock.
	containers  map[key][]byte    // their lines
	places      map[placeID]int   // their numbers
	looks       map[int]time.Time // by place
	filesystems map[string]FilesystemUsage
}

// NewRecorder opens a recording of at most limit bytes, at least 64 KiB. What
// stands at path already is kept as path.1.
func NewRecorder(path string, limit int64, log *slog.Logger) (*Recorder, error) {
	if limit < 64<<10 {
		return nil, fmt.Errorf("cannot record to %s: want a limit of at least 64Ki", path)
	}
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot keep the recording before: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot record: %w", err)
	}
	return &Recorder{
		path: path, limit: limit, log: log, file: f, lines: make(chan []byte, recordWaiting),
		containers: make(map[key][]byte), places: make(map[placeID]int),
		looks: make(map[int]time.Time), filesystems: make(map[string]FilesystemUsage),
	}, nil
}

// Run writes until ctx ends. A recording that cannot go on is told in the log
// and is no error.
func (r *Recorder) Run(ctx context.Context) error {
	defer r.file.Close()
	w := &recordWriter{file: r.file, limit: r.limit}
	w.zip = gzip.NewWriter(w)
	tick := time.NewTicker(recordFlush)
	defer tick.Stop()
	for {
		var err error
		select {
		case line := <-r.lines:
			err = w.line(line)
		case <-tick.C:
			err = w.flush()
		case <-ctx.Done():
			r.finish(w)
			return nil
		}
		if err != nil {
			r.stop(err)
			if errors.Is(err, errRecordFull) {
				err = w.end("the limit is reached")
			}
			if err != nil && !errors.Is(err, errRecordFull) {
				r.log.Debug("the recording has no last line", "err", err)
			}
			<-ctx.Done()
			return nil
		}
	}
}

// finish writes what waits and the last line.
func (r *Recorder) finish(w *recordWriter) {
	r.ended.Store(true)
	for {
		select {
		case line := <-r.lines:
			if err := w.line(line); err != nil {
				r.log.Warn("the recording is not complete", "file", r.path, "err", err)
				return
			}
		default:
			if err := w.end("the agent ended"); err != nil {
				r.log.Warn("the recording is not complete", "file", r.path, "err", err)
			}
			return
		}
	}
}

func (r *Recorder) stop(err error) {
	if !r.ended.Swap(true) {
		r.log.Warn("recording stops; watching goes on", "file", r.path, "err", err)
	}
}

// put hands a line to Run, and never waits.
func (r *Recorder) put(l recordLine) {
	line, err := json.Marshal(l)
	if err != nil {
		r.stop(err)
		return
	}
	select {
	case r.lines <- append(line, '\n'):
	default:
		r.stop(errors.New("the disk does not take the lines in time"))
	}
}

var errRecordFull = errors.New("its limit is reached")

// recordWriter compresses lines into the file and knows how large it is.
type recordWriter struct {
	file    *os.File
	zip     *gzip.Writer
	limit   int64
	written int64 // in the file
	waiting int64 // bytes of lines that may not be in the file yet
}

// Write takes what comes out of the compressor.
func (w *recordWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.written += int64(n)
	return n, err
}

// line adds one, or nothing where it might not find room: compressed it may,
// at worst, be as long as it is.
func (w *recordWriter) line(line []byte) error {
	if !w.room(line) {
		if err := w.flush(); err != nil {
			return err
		}
		if !w.room(line) {
			return errRecordFull
		}
	}
	w.waiting += int64(len(line))
	_, err := w.zip.Write(line)
	return err
}

func (w *recordWriter) room(line []byte) bool {
	return w.written+w.waiting+int64(len(line))+recordEnding <= w.limit
}

func (w *recordWriter) flush() error {
	if w.waiting == 0 {
		return nil
	}
	w.waiting = 0
	return w.zip.Flush()
}

func (w *recordWriter) end(why string) error {
	line, err := json.Marshal(recordLine{End: why})
	if err != nil {
		return err
	}
	if _, err := w.zip.Write(append(line, '\n')); err != nil {
		return err
	}
	return w.zip.Close()
}

// plainOrZip reads a recording as it was written, or uncompressed.
func plainOrZip(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(2)
	if err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil //nolint:nilerr // too short to be one: its reader says so
	}
	return gzip.NewReader(b)
}
