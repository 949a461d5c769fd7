package restart

import "testing"

// TestCasesArePlayed: what the docs say is what the stories play, and no story
// is untold.
func TestCasesArePlayed(t *testing.T) {
	told := map[string]bool{}
	for _, c := range Cases() {
		if len(c.Stories) == 0 {
			t.Errorf("%s %s: nothing plays it", c.Kind, c.Situation)
		}
		for _, name := range c.Stories {
			told[name] = true
			if stories()[name] == nil && storiesAlone()[name] == nil {
				t.Errorf("%s %s: there is no story %s", c.Kind, c.Situation, name)
			}
		}
	}
	for _, all := range []map[string]story{stories(), storiesAlone()} {
		for name := range all {
			if !told[name] {
				t.Errorf("story %s is told by no case", name)
			}
		}
	}
}
