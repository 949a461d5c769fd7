package freeport

import "testing"

// A port is nobody else's from when it was given until the test that has it ends,
// though its server does not listen yet. Of these ports no other test asks.
func TestPortIsReserved(t *testing.T) {
	var port int
	t.Run("has it", func(t *testing.T) {
		port = From(t, 50000)
		if _, mine := reserve(t.Context(), port); mine {
			t.Errorf("port %d is given twice", port)
		}
	})
	release, mine := reserve(t.Context(), port)
	if !mine {
		t.Fatalf("port %d is still reserved after its test", port)
	}
	release()
}
