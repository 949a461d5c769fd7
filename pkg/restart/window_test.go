package restart

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestWindows(t *testing.T) {
	nights := v1alpha1.RestartWindow{Start: "0 22 * * 1-5", Duration: metav1.Duration{Duration: 8 * time.Hour}, TimeZone: "Europe/Berlin"}
	noons := v1alpha1.RestartWindow{Start: "0 12 * * *", Duration: metav1.Duration{Duration: time.Hour}}
	never := v1alpha1.RestartWindow{Start: "0 0 30 2 *", Duration: metav1.Duration{Duration: time.Hour}}
	at := func(s string) time.Time {
		t.Helper()
		parsed, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	tests := []struct {
		name    string
		windows []v1alpha1.RestartWindow
		now     string
		open    bool
		opens   string
	}{
		{"none", nil, "2026-03-02T12:00:00Z", true, ""},
		{"before it opens", []v1alpha1.RestartWindow{nights}, "2026-03-02T20:59:59Z", false, "2026-03-02T21:00:00Z"},
		{"as it opens", []v1alpha1.RestartWindow{nights}, "2026-03-02T21:00:00Z", true, ""},
		{"the last second", []v1alpha1.RestartWindow{nights}, "2026-03-03T04:59:59Z", true, ""},
		{"as it closes", []v1alpha1.RestartWindow{nights}, "2026-03-03T05:00:00Z", false, "2026-03-03T21:00:00Z"},
		{"summer time", []v1alpha1.RestartWindow{nights}, "2026-07-06T20:00:00Z", true, ""},
		{"from Friday into Saturday", []v1alpha1.RestartWindow{nights}, "2026-03-07T04:00:00Z", true, ""},
		{"on Saturday evening", []v1alpha1.RestartWindow{nights}, "2026-03-07T21:30:00Z", false, "2026-03-09T21:00:00Z"},
		{"the second of two", []v1alpha1.RestartWindow{nights, noons}, "2026-03-07T12:30:00Z", true, ""},
		{"between two", []v1alpha1.RestartWindow{nights, noons}, "2026-03-07T14:00:00Z", false, "2026-03-08T12:00:00Z"},
		{"one that never opens", []v1alpha1.RestartWindow{never}, "2026-03-07T14:00:00Z", false, ""},
		{"one that never opens, and another", []v1alpha1.RestartWindow{never, noons}, "2026-03-07T14:00:00Z", false, "2026-03-08T12:00:00Z"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			windows, err := NewWindows(test.windows)
			if err != nil {
				t.Fatal(err)
			}
			open, opens := windows.open(at(test.now))
			want := time.Time{}
			if test.opens != "" {
				want = at(test.opens)
			}
			if open != test.open || !opens.Equal(want) {
				t.Errorf("open %v, opens %s, want %v, %s", open, opens.UTC(), test.open, test.opens)
			}
		})
	}
}
