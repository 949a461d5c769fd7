package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodeagent/nodeagent/pkg/reload"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// auditEvent is what is read of a line of the API server's audit log.
type auditEvent struct {
	Verb string `json:"verb"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	UserAgent   string            `json:"userAgent"`
	Annotations map[string]string `json:"annotations"`
	Received    time.Time         `json:"requestReceivedTimestamp"`
	ObjectRef   struct {
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

func (e auditEvent) String() string {
	ref := e.ObjectRef
	return restart.Right{Group: ref.APIGroup, Resource: ref.Resource, Subresource: ref.Subresource, Verb: e.Verb}.String()
}

// anybodys tells whether every account may ask that: what the API server serves,
// and what one's own rights are.
func (e auditEvent) anybodys() bool {
	return e.ObjectRef.Resource == "" || e.ObjectRef.Resource == "selfsubjectaccessreviews"
}

// forbidden tells whether it was for want of a right: admission refuses with
// 403 too, as in a namespace that is being removed.
func (e auditEvent) forbidden() bool {
	return e.ResponseStatus.Code == 403 && e.Annotations["authorization.k8s.io/decision"] == "forbid"
}

// apiServerStarts is when a story had the API server begin anew. It answers
// before it has read its roles, and knows nobody's rights until then.
var apiServerStarts span

type span struct{ from, to time.Time }

func (s span) contains(t time.Time) bool { return !t.Before(s.from) && !t.After(s.to) }

// thief is the user agent of a story that has an agent's token and tries more
// than agents do.
const thief = "thief"

// ofAgents are the rights of all roles that agents have.
func ofAgents() sets.Set[string] {
	return named(restart.Rights(), restart.OwnRights(), restart.OtherRights(), restart.LaunchRights(), reload.Rights(), reload.OwnRights())
}

// unplayed are the rights that agents may need and that the stories of the lab
// do not have them use, each with why.
func unplayed() map[string]string {
	const (
		streamed  = "an informer lists only where the API server does not stream what there is (WatchList)"
		openShift = "the lab has no OpenShift; the story other-kinds of pkg/restart plays it"
	)
	return map[string]string{
		"list nodes":             streamed,
		"list configmaps":        streamed,
		"list secrets":           streamed,
		"list deployments.apps":  streamed,
		"list statefulsets.apps": streamed,
		"list daemonsets.apps":   streamed,

		"get deploymentconfigs.apps.openshift.io":   openShift,
		"patch deploymentconfigs.apps.openshift.io": openShift,
		"list replicationcontrollers":               openShift,
	}
}

func named(lists ...[]restart.Right) sets.Set[string] {
	all := sets.New[string]()
	for _, r := range slices.Concat(lists...) {
		all.Insert(r.String())
	}
	return all
}

// checkRights asks the API server's own audit log, when all stories have
// ended: the agents asked for nothing that their role does not name, and were
// refused nothing. When every story was played, each right was used, but for
// those of unplayed: any other needs a story, or has to go.
func checkRights(everyStory bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, err := shared.Lab(ctx, "audit-log")
	if err != nil {
		return err
	}
	asked, err := agentRequests(strings.TrimSpace(path))
	if err != nil {
		return err
	}
	if len(asked) == 0 {
		return errors.New("the audit log names no request of an agent")
	}
	return errors.Join(wrongWith(asked, ofAgents(), everyStory)...)
}

func wrongWith(asked []auditEvent, rights sets.Set[string], everyStory bool) []error {
	used := sets.New[string]()
	var wrong []error
	for _, e := range asked {
		if e.anybodys() {
			continue
		}
		used.Insert(e.String())
		if e.forbidden() && !apiServerStarts.contains(e.Received) {
			wrong = append(wrong, fmt.Errorf("an agent was refused to %s %s", e, e.ObjectRef.Name))
		}
	}
	for _, right := range sets.List(used.Difference(rights)) {
		wrong = append(wrong, fmt.Errorf("an agent asked to %s, which its role does not name", right))
	}
	if everyStory {
		for _, right := range sets.List(rights.Difference(used).Difference(sets.KeySet(unplayed()))) {
			wrong = append(wrong, fmt.Errorf("no story needs the right to %s: play one, take it from the role, or say in unplayed why it stays", right))
		}
	}
	return wrong
}

// TestRightsAreJudged is of the judgement alone; what it is about is in the audit
// log when all stories have ended.
func TestRightsAreJudged(t *testing.T) {
	t.Parallel()
	event := func(verb, group, resource string, code int, decision string) auditEvent {
		var e auditEvent
		e.Verb, e.ObjectRef.APIGroup, e.ObjectRef.Resource = verb, group, resource
		e.Received = time.Unix(1, 0) // in no API server's start
		e.ResponseStatus.Code, e.Annotations = code, map[string]string{"authorization.k8s.io/decision": decision}
		return e
	}
	get, patch := event("get", "apps", "deployments", 200, "allow"), event("patch", "", "nodes", 200, "allow")
	rights := sets.New("get deployments.apps", "patch nodes", "list nodes", "get deploymentconfigs.apps.openshift.io")
	for _, test := range []struct {
		name  string
		asked []auditEvent
		every bool
		want  []string
	}{
		{"all that has to be was used", []auditEvent{get, patch}, true, nil},
		{"one is used by no story", []auditEvent{get}, true, []string{"no story needs the right to patch nodes"}},
		{"some stories were left out", []auditEvent{get}, false, nil},
		{"more than the role names", []auditEvent{get, patch, event("get", "", "secrets", 200, "allow")}, true, []string{"asked to get secrets, which its role does not name"}},
		{"refused for want of a right", []auditEvent{get, event("patch", "", "nodes", 403, "forbid")}, true, []string{"was refused to patch nodes"}},
		{"refused by an admission", []auditEvent{get, event("patch", "", "nodes", 403, "allow")}, true, nil},
		{"what anybody may ask", []auditEvent{get, patch, event("create", "authorization.k8s.io", "selfsubjectaccessreviews", 201, "allow")}, true, nil},
	} {
		got := wrongWith(test.asked, rights, test.every)
		ok := len(got) == len(test.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i].Error(), test.want[i])
		}
		if !ok {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if gone := sets.KeySet(unplayed()).Difference(ofAgents()); len(gone) > 0 {
		t.Errorf("unplayed names what is no right of agents: %v", sets.List(gone))
	}
}

func agentRequests(path string) ([]auditEvent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
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
		if e.User.Username == restart.AgentAccount && e.UserAgent != thief {
			found = append(found, e)
		}
	}
	return found, lines.Err()
}
