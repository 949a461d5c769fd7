package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nicholas-fedor/shoutrrr"
)

// chat writes into a chat service. Slack, with a bot's token, gets a thread for
// each incident; of the others none tells what a message is called that was
// sent, so each message there names its incident.
type chat struct {
	at     address
	client *http.Client
}

func (c *chat) again() time.Duration { return 0 }

func (c *chat) send(ctx context.Context, in Incident, thread string) (string, error) {
	to, err := c.at.read()
	if err != nil {
		return "", err
	}
	if token, channel, api, ok := slackBot(to); ok {
		return c.slack(ctx, in, thread, token, channel, api)
	}
	return "", c.other(ctx, in, to)
}

// slackBot reads slack://xoxb:…@CHANNEL, a bot's token as shoutrrr writes it.
// With ?api=URL another API is asked than Slack's own.
func slackBot(to string) (token, channel, api string, ok bool) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "slack" || u.User == nil {
		return "", "", "", false
	}
	kind := u.User.Username()
	rest, _ := u.User.Password()
	if kind != "xoxb" && kind != "xoxp" {
		return "", "", "", false
	}
	return kind + "-" + strings.TrimPrefix(rest, kind+"-"), u.Host, u.Query().Get("api"), true
}

// slack posts to chat.postMessage of Slack's Web API, which answers what the
// message is called.
func (c *chat) slack(ctx context.Context, in Incident, thread, token, channel, api string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"channel": channel, "text": text(in, thread == ""), "thread_ts": thread, "unfurl_links": false,
	})
	if err != nil {
		return thread, fmt.Errorf("cannot encode the message: %w", err)
	}
	to := strings.TrimSuffix(cmp.Or(api, "https://slack.com/api"), "/") + "/chat.postMessage"
	answer, err := post(ctx, c.client, to, http.Header{"Authorization": {"Bearer " + token}}, body)
	if err != nil {
		return thread, err
	}
	var said struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
		TS    string `json:"ts"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || !said.OK {
		return thread, fmt.Errorf("cannot write into Slack: it answered %q", said.Error)
	}
	return cmp.Or(thread, said.TS), nil
}

// other hands the message to shoutrrr, which has a bound of its own for it but
// takes no context.
func (c *chat) other(ctx context.Context, in Incident, to string) error {
	sender, err := shoutrrr.CreateSender(to)
	if err != nil {
		return fmt.Errorf("cannot use the receiver's URL: %w", hush(root(err), to))
	}
	sender.Timeout = sendWithin
	done := make(chan error, 1)
	go func() { done <- errors.Join(sender.Send(text(in, true), nil)...) }() // ends by itself within its Timeout
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		if err != nil {
			return fmt.Errorf("cannot write into the chat: %w", hush(root(err), to))
		}
	}
	return nil
}

// root is the innermost error: those around it quote the URL.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
			inner = joined.Unwrap()[len(joined.Unwrap())-1]
		}
		if inner == nil {
			return err
		}
		err = inner
	}
}
