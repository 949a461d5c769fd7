package plan

import (
	"reflect"
	"testing"
)

// fill gives every field a value of its own, so that one that the encoding
// forgets is found.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(string(rune('a'+*n%26)) + "\x00é")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) << 20)
	case reflect.Uint8:
		v.SetUint(uint64(*n % 256))
	default:
		v.SetUint(uint64(*n) << 8)
	}
}

func TestEveryFieldArrives(t *testing.T) {
	p, n := &Plan{}, 0
	fill(reflect.ValueOf(p).Elem(), &n)
	got, err := Decode(p.Encode())
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("err %v\ngot  %+v\nwant %+v", err, got, p)
	}
}

func TestForeignBytesAreRefused(t *testing.T) {
	good := (&Plan{Argv: []string{"x"}}).Encode()
	for i := range good {
		if _, err := Decode(good[:i]); err == nil {
			t.Errorf("the first %d bytes were taken for a plan", i)
		}
	}
	if _, err := Decode(append(good, 0)); err == nil {
		t.Error("a byte too many was taken")
	}
}

func TestTold(t *testing.T) {
	want := Told{KeyError: "cannot mount /x: no such file", KeyCode: "-3"}
	got := Parse(want.Lines())
	if !reflect.DeepEqual(got, want) || got.Int(KeyCode) != -3 {
		t.Fatalf("got %v", got)
	}
	if got := Parse((Told{KeyError: "a\ncode 0"}).Lines()); got[KeyCode] != "" {
		t.Error("a value made a key of its own")
	}
}
