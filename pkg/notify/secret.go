package notify

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// read gives what a file of a mounted Secret holds, without the line's end that
// an editor put there. It is read for each message: a Secret that was changed
// is in effect at once.
func read(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read what a Secret should hold: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", fmt.Errorf("cannot use %s: it is empty", path)
	}
	return text, nil
}

// address is where a receiver is: of the configuration, or of a file.
type address struct{ url, file string }

func (a address) read() (string, error) {
	if a.file == "" {
		return a.url, nil
	}
	return read(a.file)
}

// hush makes an error fit to be logged. HTTP clients and chat libraries put the
// URL into theirs, which often is the secret itself.
func hush(err error, address string) error {
	if err == nil {
		return nil
	}
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // without method and URL
	}
	said := err.Error()
	for _, secret := range secrets(address) {
		said = strings.ReplaceAll(said, secret, "***")
	}
	return errors.New(said)
}

// secrets are the parts of a URL that may be a token: all of it, and what of it
// is long enough to be one.
func secrets(address string) []string {
	found := []string{address}
	u, err := url.Parse(address)
	if err != nil {
		return found
	}
	parts := strings.FieldsFunc(u.EscapedPath()+"/"+u.Opaque, func(r rune) bool { return r == '/' })
	if u.User != nil {
		password, _ := u.User.Password()
		parts = append(parts, u.User.Username(), password)
	}
	if !strings.Contains(u.Scheme, "http") {
		parts = append(parts, u.Host) // chat services have tokens there
	}
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	for _, p := range parts {
		if len(p) >= 6 {
			found = append(found, p)
		}
	}
	return found
}
