package unpack

import "fmt"

// RefusedError says that the content itself is at fault: the same bytes are
// refused again.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}
