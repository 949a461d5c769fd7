package ahead

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestAhead(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(content), "halves": iotest.HalfReader(bytes.NewReader(content)),
		"data with the error": iotest.DataErrReader(bytes.NewReader(content)),
	} {
		a := New(r)
		got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(a, 100)))
		rest, err2 := io.ReadAll(a)
		if !bytes.Equal(append(got, rest...), content) || err != nil || err2 != nil {
			t.Errorf("%s: %d bytes, %v, %v", name, len(got)+len(rest), err, err2)
		}
		a.Close()
	}
	broke := errors.New("broke")
	a := New(io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broke)))
	if got, err := io.ReadAll(a); !errors.Is(err, broke) || len(got) != len(content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.Close()
	// One that nobody reads ends all the same.
	a = New(bytes.NewReader(content))
	a.Close()
}
