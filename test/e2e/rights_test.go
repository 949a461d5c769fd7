package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

// auditEvent is what is read of a line of the API server's audit log.
type auditEvent struct {
	Verb string `json:"verb"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		APIGroup    string `json:"apiGroup"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// The API server's own audit log says that the agents asked for nothing that
// their role does not name, and were refused nothing.
func TestRights(t *testing.T) {
	s := newStory(t, time.Minute)
	path, err := s.Lab(s.ctx, "audit-log")
	s.must(err)
	granted := sets.New[string]()
	for _, r := range slices.Concat(restart.Rights(), restart.OwnRights(), restart.LaunchRights()) {
		granted.Insert(r.String())
	}
	asked := map[string]int{}
	for _, e := range agentRequests(t, strings.TrimSpace(path)) {
		ref := e.ObjectRef
		what := restart.Right{Group: ref.APIGroup, Resource: ref.Resource, Subresource: ref.Subresource, Verb: e.Verb}.String()
		asked[what]++
		if !granted.Has(what) {
			t.Errorf("an agent asked to %s, which its role does not name", what)
		}
		if e.ResponseStatus.Code == 403 {
			t.Errorf("an agent was refused to %s %s", what, ref.Name)
		}
	}
	if len(asked) == 0 {
		t.Error("the audit log names no request of an agent")
	}
	t.Logf("requests: %v", asked)
}

func agentRequests(t *testing.T, path string) []auditEvent {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var found []auditEvent
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // the last line is being written
		}
		if e.User.Username == "system:serviceaccount:nodeagent:nodeagent" {
			found = append(found, e)
		}
	}
	return found
}
