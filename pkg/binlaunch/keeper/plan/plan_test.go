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
	n := 0
	for _, x := range []struct{ p, got Part }{{&Plan{}, &Plan{}}, {&Prelude{}, &Prelude{}}, {&Handed{}, &Handed{}}} {
		fill(reflect.ValueOf(x.p).Elem(), &n)
		if err := Decode(Encode(x.p), x.got); err != nil || !reflect.DeepEqual(x.got, x.p) {
			t.Fatalf("err %v\ngot  %+v\nwant %+v", err, x.got, x.p)
		}
	}
}

// One flag is not taken for the other.
func TestHandedArrives(t *testing.T) {
	for _, want := range []Handed{{}, {Cgroups: 7}, {OOMEvents: true}, {Cgroups: 255, CPUUsage: true}} {
		var got Handed
		if err := Decode(Encode(&want), &got); err != nil || got != want {
			t.Errorf("got %+v, want %+v, err %v", got, want, err)
		}
	}
}

func TestForeignBytesAreRefused(t *testing.T) {
	good := Encode(&Plan{Argv: []string{"x"}})
	for i := range good {
		if err := Decode(good[:i], &Plan{}); err == nil {
			t.Errorf("the first %d bytes were taken for a plan", i)
		}
	}
	if err := Decode(append(good, 0), &Plan{}); err == nil {
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
