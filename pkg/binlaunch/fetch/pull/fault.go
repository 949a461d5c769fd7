package pull

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
)

// fault is an error with the one who is to blame.
type fault struct {
	kind Kind
	err  error
}

func (f fault) Error() string { return f.err.Error() }
func (f fault) Unwrap() error { return f.err }

func refused(format string, args ...any) error {
	return fault{Refused, fmt.Errorf(format, args...)}
}

// unusable says that what came is at fault.
func unusable(format string, args ...any) error {
	return fault{Content, fmt.Errorf(format, args...)}
}

func again(format string, args ...any) error {
	return fault{Again, fmt.Errorf(format, args...)}
}

// busyError says that the server will do later.
type busyError struct {
	status string
	after  time.Duration
}

func (e *busyError) Error() string { return "the server answers " + e.status }

// status makes an error of an answer that is no body.
func status(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		busy := &busyError{status: resp.Status}
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			busy.after = time.Duration(s) * time.Second
		}
		return fault{Network, busy}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fault{Absent, fmt.Errorf("the server answers %s: does it need a headers file?", resp.Status)}
	default:
		return fault{Absent, fmt.Errorf("the server answers %s", resp.Status)}
	}
}

// whyNot tells an address or redirect that is not allowed from a server that
// is away.
func whyNot(err error) error {
	var address *AddressError
	var redirect *RedirectError
	switch {
	case errors.As(err, &redirect):
		return fault{Refused, redirect}
	case errors.As(err, &address):
		return fault{Refused, address}
	}
	return fault{Network, err}
}

// failure makes the answer of whatever went wrong with an item.
func failure(item int, err error) *Failure {
	f := &Failure{Item: item, Kind: Network, Message: err.Error(), NoSpace: errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)}
	var known fault
	var content *unpack.RefusedError
	var from *contentError
	if errors.As(err, &from) {
		f.Source, f.SHA256, f.SHA512, f.Bytes = from.source, from.sha256, from.sha512, from.bytes
	}
	switch {
	case f.NoSpace:
		f.Kind, f.Message = Disk, "no space is left where the store is: "+err.Error()
	case errors.As(err, &content):
		f.Kind, f.Message = Content, "it has "+content.Reason
	case errors.As(err, &known):
		f.Kind = known.kind
	case isLocal(err):
		f.Kind = Disk
	}
	return f
}

// isLocal reports whether this machine's own file system is at fault.
func isLocal(err error) bool {
	var write *unpack.WriteError
	var errno unix.Errno
	return errors.As(err, &write) || errors.As(err, &errno)
}
