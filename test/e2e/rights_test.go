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

// ofAgents are the rights that stories have agents need. Those on workloads of
// other projects are as many as there are kinds, and one stands for all.
func ofAgents() sets.Set[string] {
	return named(restart.Rights(), restart.OwnRights(), restart.LaunchRights(), reload.Rights(), reload.OwnRights())
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
// refused nothing. When every story was played, it names the rights that none
// used: such a one needs a story, or has to go.
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
	rights, used := ofAgents(), sets.New[string]()
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
	for _, right := range sets.List(used.Difference(rights.Union(named(restart.OtherRights())))) {
		wrong = append(wrong, fmt.Errorf("an agent asked to %s, which its role does not name", right))
	}
	if everyStory {
		for _, right := range sets.List(rights.Difference(used)) {
			fmt.Fprintln(os.Stderr, "e2e: no story needs the right to", right)
		}
	}
	return errors.Join(wrong...)
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
