package restart

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

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

// TestCasesAreOnTheLab: the tests of test/e2e that a case names are there, and
// a case that names none says why.
func TestCasesAreOnTheLab(t *testing.T) {
	files, err := filepath.Glob("../../test/e2e/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllSubmatch(text, -1) {
			there[string(found[1])] = true
		}
	}
	for _, c := range Cases() {
		if len(c.Lab) == 0 && c.NotOnLab == "" {
			t.Errorf("%s %s: it is not played on the lab, and does not say why", c.Kind, c.Situation)
		}
		for _, name := range c.Lab {
			if !there[name] {
				t.Errorf("%s %s: test/e2e has no %s", c.Kind, c.Situation, name)
			}
		}
	}
}
