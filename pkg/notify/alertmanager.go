package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// alertmanager posts alerts to Alertmanager's API v2. One alert fires while the
// restart is on its way; one that ended badly is another one, which fires until
// the workload is restarted well or alertFor is over. Alertmanager forgets what
// it is not told again, so both are told every alertEvery.
type alertmanager struct {
	at     address
	client *http.Client
}

const (
	alertEvery = time.Minute
	alertHolds = 4 * alertEvery // two tries may fail
	alertFor   = 24 * time.Hour
)

// The alerts' names.
const (
	alertRestart = "NodeagentRestart"
	alertPerson  = "NodeagentRestartNeedsPerson"
)

// alert is what Alertmanager's API calls postableAlert.
type alert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (a *alertmanager) again() time.Duration { return alertEvery }

func (a *alertmanager) send(ctx context.Context, in Incident, _ string) (string, error) {
	body, err := json.Marshal(alerts(in, time.Now()))
	if err != nil {
		return "", fmt.Errorf("cannot encode the alert: %w", err)
	}
	base, err := a.at.read()
	if err != nil {
		return "", err
	}
	to, err := url.JoinPath(base, "api/v2/alerts")
	if err != nil {
		return "", fmt.Errorf("cannot use the receiver's URL: %w", hush(err, base))
	}
	_, err = post(ctx, a.client, to, nil, body)
	return "", err
}

// alerts are what is to be said of an incident now. Labels are the same in all
// stages, or it would be another alert.
func alerts(in Incident, now time.Time) []alert {
	labels := func(name, severity string) map[string]string {
		return map[string]string{
			"alertname": name, "severity": severity, "namespace": in.Namespace,
			"kind": in.Kind, "workload": in.Workload, "restart": in.Restart,
		}
	}
	annotations := map[string]string{"summary": title(in), "description": strings.TrimSpace(in.Why + " " + in.Message)}
	for name, value := range map[string]string{"graph": in.Graph, "pod": in.Pod, "node": in.Node, "reason": string(in.Reason)} {
		if value != "" {
			annotations[name] = value
		}
	}
	on := alert{Labels: labels(alertRestart, "info"), Annotations: annotations, StartsAt: in.Asked, EndsAt: now.Add(alertHolds), GeneratorURL: in.Graph}
	person := on
	person.Labels = labels(alertPerson, "warning")
	switch {
	case in.Finished == nil:
		return []alert{on}
	case in.Stage == v1alpha1.NotifyObserved:
		return []alert{ends(on, *in.Finished)}
	}
	person.StartsAt = *in.Finished
	if in.Stage == v1alpha1.NotifyDone {
		person.StartsAt = in.Asked // the one before ended badly, perhaps
		person = ends(person, *in.Finished)
	}
	return []alert{ends(on, *in.Finished), person}
}

// ends resolves an alert. Alertmanager refuses what ends before it starts.
func ends(a alert, at time.Time) alert {
	if !at.After(a.StartsAt) {
		at = a.StartsAt.Add(time.Millisecond)
	}
	a.EndsAt = at
	return a
}

// open tells whether an incident has to be told again.
func open(in Incident, now time.Time) bool {
	switch in.Stage {
	case v1alpha1.NotifyDone, v1alpha1.NotifyObserved:
		return false
	case v1alpha1.NotifyFailed:
		return in.Finished != nil && now.Sub(*in.Finished) < alertFor
	}
	return true
}
