package restart

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"sync"
	"testing"
)

// boundaries are the step boundaries at which the stories kill an agent.
type boundaries struct {
	mu      sync.Mutex
	met     map[string]bool
	stories map[string]bool
}

// add tells that a story kills an agent at these moments.
func (b *boundaries) add(story string, moments ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.met == nil {
		b.met, b.stories = map[string]bool{}, map[string]bool{}
	}
	b.stories[story] = true
	for _, m := range moments {
		b.met[m] = true
	}
}

// wantAll fails where no story kills an agent before, or after, one of the
// writes that there are. Together the stories meet all, so it is for all alone.
func (b *boundaries) wantAll(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, story := range []string{"killed", "killed-pods", "killed-stalling", "killed-waiting"} {
		if !b.stories[story] {
			return // -run left it out, or it failed
		}
	}
	for _, action := range actions(t) {
		for _, moment := range []string{"before " + string(action), "after " + string(action)} {
			if !b.met[moment] && action != Rest && action != Wait {
				t.Errorf("no story kills an agent %s", moment)
			}
		}
	}
}

// actions are those that next.go declares.
func actions(t *testing.T) (all []Action) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "next.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Action" {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, Action(value))
			}
		}
		return true
	})
	if len(all) < 10 {
		t.Fatalf("next.go declares the actions %v", all)
	}
	return all
}
