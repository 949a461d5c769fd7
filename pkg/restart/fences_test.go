package restart

import (
	"slices"
	"testing"
)

// TestEveryWriteIsFenced: no right to write without a policy that bounds it.
func TestEveryWriteIsFenced(t *testing.T) {
	operations := map[string]string{"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}
	fenced := func(r Right, operation string) bool {
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		return slices.ContainsFunc(Fences(nil), func(f Fence) bool {
			return !f.Everybody && slices.ContainsFunc(f.Resources, func(of FencedResource) bool {
				return slices.Contains(of.Groups, r.Group) && slices.Contains(of.Resources, resource) && slices.Contains(of.Operations, operation)
			})
		})
	}
	for _, r := range slices.Concat(Rights(), OwnRights(), LaunchRights(), OtherRights()) {
		if operation, writes := operations[r.Verb]; writes && r.Resource != "events" && !fenced(r, operation) {
			t.Errorf("nothing bounds the right to %s", r)
		}
	}
}
