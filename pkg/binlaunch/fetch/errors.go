package fetch

import (
	"errors"
	"fmt"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

// Error is why an artifact is not in the store.
type Error struct {
	URL string // "": not one artifact's
	// Permanent: only another spec helps. It cannot be read, or its digest is
	// that of content which cannot be used.
	Permanent bool
	// Wrong: a server sent something else than what was asked for. It may be
	// mended there, and to find that out costs all of it again.
	Wrong bool
	// Full: the node's disk or the store is full.
	Full bool
	Err  error
}

func (e *Error) Error() string {
	if e.URL == "" {
		return fmt.Sprintf("cannot fetch: %v", e.Err)
	}
	return fmt.Sprintf("cannot fetch %s: %v", e.URL, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IsPermanent reports whether trying again is of no use.
func IsPermanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Permanent
}

// IsWrong reports whether it was fetched, and was the wrong thing.
func IsWrong(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Wrong
}

func permanent(url, format string, args ...any) error {
	return &Error{URL: url, Permanent: true, Err: fmt.Errorf(format, args...)}
}

// pullError is a failure of the confined process, of its kind.
type pullError struct{ pull.Failure }

func (e *pullError) Error() string { return e.Message }

// classify makes the answer for the caller.
func classify(items []item, err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	var p *pullError
	if !errors.As(err, &p) {
		return &Error{Err: err}
	}
	url := ""
	if p.Item < len(items) {
		url = items[p.Item].url
	}
	return &Error{URL: url, Err: p, Full: p.NoSpace, Wrong: p.Kind == pull.Content}
}
