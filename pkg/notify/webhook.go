package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The headers of a Webhook's requests. The signature is the HMAC-SHA256, in
// hexadecimal, of the timestamp, a dot and the body; a receiver that looks at
// the timestamp cannot be told an old message again.
const (
	headerSignature = "X-Nodeagent-Signature"
	headerTimestamp = "X-Nodeagent-Timestamp"
	headerDelivery  = "X-Nodeagent-Delivery" // the same when a message is sent again
)

// webhook posts an Incident as JSON.
type webhook struct {
	at      address
	keyFile string
	client  *http.Client
}

func (w *webhook) again() time.Duration { return 0 }

func (w *webhook) send(ctx context.Context, in Incident, _ string) (string, error) {
	body, err := json.Marshal(struct {
		Version int `json:"version"`
		Incident
		Text string `json:"text"`
	}{1, in, text(in, true)})
	if err != nil {
		return "", fmt.Errorf("cannot encode the message: %w", err)
	}
	header := http.Header{headerDelivery: {in.ID + "/" + string(in.Stage)}}
	if w.keyFile != "" {
		key, err := read(w.keyFile)
		if err != nil {
			return "", err
		}
		at := strconv.FormatInt(time.Now().Unix(), 10)
		header.Set(headerTimestamp, at)
		header.Set(headerSignature, "sha256="+sign(key, at, body))
	}
	url, err := w.at.read()
	if err != nil {
		return "", err
	}
	_, err = post(ctx, w.client, url, header, body)
	return "", err
}

func sign(key, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// longestAnswer bounds what is read of an answer.
const longestAnswer = 64 << 10

// post sends JSON and wants a 2xx. Its errors hold no part of the URL.
func post(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) (answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot use the receiver's URL: %w", hush(err, url))
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "nodeagent")
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the receiver: %w", hush(err, url))
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return nil, fmt.Errorf("cannot read the receiver's answer: %w", hush(err, url))
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the receiver answered %s", response.Status)
	}
	return answer, nil
}
