package v1alpha1

import (
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NotifyConfig says who is told of restarts.
type NotifyConfig struct {
	// receivers are those who can be told. The annotation nodeagent.dev/notify
	// of a workload or of its namespace names them, separated by commas.
	Receivers []Receiver `json:"receivers,omitempty"`

	// default are the receivers of workloads that no annotation speaks of; none
	// stands for nobody. When it is not set, all receivers.
	Default []string `json:"default,omitempty"`

	// graph is a link that stands in each message. {namespace}, {kind},
	// {workload}, {pod} and {node} are filled in.
	Graph string `json:"graph,omitempty"`
}

// ReceiverKind says how a receiver is spoken to.
type ReceiverKind string

// The kinds.
const (
	ReceiverChat         ReceiverKind = "Chat"
	ReceiverWebhook      ReceiverKind = "Webhook"
	ReceiverAlertmanager ReceiverKind = "Alertmanager"
)

// NobodyNotified is no receiver's name.
const NobodyNotified = "none"

// Receiver is one who can be told.
type Receiver struct {
	// name is what annotations and default call it.
	Name string `json:"name,omitempty"`

	// kind is Chat (a chat service, by its URL as docs/notify.md lists them),
	// Webhook (JSON is posted, see docs/notify.md) or Alertmanager.
	Kind ReceiverKind `json:"kind,omitempty"`

	// urlFile is a file that holds the receiver's URL: of the Secret
	// nodeagent-notify, which is mounted at /etc/nodeagent-notify. It is read
	// again for each message.
	URLFile string `json:"urlFile,omitempty"`

	// url is the receiver's URL, where it holds no secret: a Webhook's or an
	// Alertmanager's. Either this or urlFile.
	URL string `json:"url,omitempty"`

	// keyFile is a file that holds the key by which a Webhook's messages are
	// signed (HMAC-SHA256), of a mounted Secret. When it is not set they are
	// not signed.
	KeyFile string `json:"keyFile,omitempty"`
}

// ExampleNotify has every field set, so that what a file may hold can be told
// from it.
func ExampleNotify() NotifyConfig {
	return NotifyConfig{
		Graph:   "https://grafana.example/d/nodeagent?var-namespace={namespace}&var-pod={pod}",
		Default: []string{"oncall"},
		Receivers: []Receiver{{
			Name: "oncall", Kind: ReceiverChat, URLFile: "/etc/nodeagent-notify/oncall", URL: "http://alertmanager:9093", KeyFile: "/etc/nodeagent-notify/key",
		}},
	}
}

func (c *NotifyConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	var known []string
	for i, r := range c.Receivers {
		here := at.Child("receivers").Index(i)
		errs = append(errs, r.validate(here)...)
		if slices.Contains(known, r.Name) {
			errs = append(errs, field.Duplicate(here.Child("name"), r.Name))
		}
		known = append(known, r.Name)
	}
	for i, name := range c.Default {
		if name != NobodyNotified && !slices.Contains(known, name) {
			errs = append(errs, field.Invalid(at.Child("default").Index(i), name, "want the name of a receiver, or none"))
		}
	}
	if _, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(c.Graph)); err != nil {
		errs = append(errs, field.Invalid(at.Child("graph"), c.Graph, "want a URL"))
	}
	return errs
}

func (r *Receiver) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(validation.IsDNS1123Label(r.Name)) > 0 || r.Name == NobodyNotified {
		errs = append(errs, field.Invalid(at.Child("name"), r.Name, "want a name in lower case such as oncall, and not none"))
	}
	kinds := []ReceiverKind{ReceiverChat, ReceiverWebhook, ReceiverAlertmanager}
	if !slices.Contains(kinds, r.Kind) {
		errs = append(errs, field.NotSupported(at.Child("kind"), r.Kind, kinds))
	}
	switch {
	case (r.URL == "") == (r.URLFile == ""):
		errs = append(errs, field.Invalid(at, r.Name, "want either url or urlFile"))
	case r.URLFile != "":
		errs = append(errs, absolute(at.Child("urlFile"), r.URLFile)...)
	case r.Kind == ReceiverChat:
		errs = append(errs, field.Forbidden(at.Child("url"), "a chat's URL holds a token: put it into a Secret and name its file in urlFile"))
	default:
		u, err := url.Parse(r.URL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			errs = append(errs, field.Invalid(at.Child("url"), "(not shown)", "want http://HOST or https://HOST"))
		} else if u.User != nil {
			errs = append(errs, field.Forbidden(at.Child("url"), "it holds a password: put it into a Secret and name its file in urlFile"))
		}
	}
	if r.KeyFile != "" {
		errs = append(errs, absolute(at.Child("keyFile"), r.KeyFile)...)
		if r.Kind != ReceiverWebhook {
			errs = append(errs, field.Forbidden(at.Child("keyFile"), "only a Webhook's messages are signed"))
		}
	}
	return errs
}
