package fetch

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

// readHeaders reads a headers file: a line "Host: NAME", then the headers that
// are sent to that host and to no other, whoever names the file in a spec.
func readHeaders(dir, name string) (map[string][]pull.Header, error) {
	if name == "" {
		return nil, nil
	}
	if dir == "" {
		return nil, fmt.Errorf("the headers file %q: the agent has no folder of headers configured", name)
	}
	if name != filepath.Base(name) || name == "." || name == ".." {
		return nil, fmt.Errorf("the headers file %q: it is a name in the agent's folder of headers, not a path", name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("cannot read the headers file: %w", err)
	}
	defer f.Close()
	out := map[string][]pull.Header{}
	host, line := "", 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line++
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key, value, ok := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || !httpguts.ValidHeaderFieldName(key) || !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("the headers file %q, line %d: no header of the form Name: value", name, line)
		case strings.EqualFold(key, "host"):
			host = value
		case host == "":
			return nil, fmt.Errorf("the headers file %q, line %d: a line Host: NAME must come first, so that nobody else gets it", name, line)
		default:
			out[host] = append(out[host], pull.Header{Name: key, Value: value})
		}
	}
	return out, nil
}
