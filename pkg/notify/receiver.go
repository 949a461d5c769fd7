package notify

import (
	"context"
	"net/http"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// receiver is one way to tell people. send is given what the receiver called
// the incident's first message, empty for the first, and returns it.
type receiver interface {
	send(ctx context.Context, in Incident, thread string) (string, error)
	// again is after how long an incident that has not ended well has to be
	// told anew, 0 for never.
	again() time.Duration
}

// sendWithin bounds one message: a receiver that hangs is tried again later.
const sendWithin = 10 * time.Second

func newReceiver(c v1alpha1.Receiver) receiver {
	at := address{c.URL, c.URLFile}
	client := &http.Client{
		Timeout: sendWithin,
		// A redirect could carry the message, and its signature, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	switch c.Kind {
	case v1alpha1.ReceiverWebhook:
		return &webhook{at: at, keyFile: c.KeyFile, client: client}
	case v1alpha1.ReceiverAlertmanager:
		return &alertmanager{at: at, client: client}
	case v1alpha1.ReceiverChat:
	}
	return &chat{at: at, client: client}
}
