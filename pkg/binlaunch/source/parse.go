package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Parse reads the Binaries of one file: YAML or JSON, several parts apart by
// "---". Everything that is wrong is told, with its line, in the words that the
// API server has for it.
func Parse(text []byte) ([]*v1alpha1.Binary, error) {
	var all []*v1alpha1.Binary
	var errs []error
	parts := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var part yaml.Node
		err := parts.Decode(&part)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil { // its place in what follows is not known
			return nil, syntax(err)
		}
		b, err := parseOne(&part)
		if err != nil {
			errs = append(errs, err)
		} else if b != nil {
			all = append(all, b)
		}
	}
	return all, errors.Join(errs...)
}

func parseOne(part *yaml.Node) (*v1alpha1.Binary, error) {
	var plain any
	if err := part.Decode(&plain); err != nil {
		return nil, syntax(err)
	}
	if plain == nil {
		return nil, nil // an empty part
	}
	raw, err := json.Marshal(plain)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", part.Line, err)
	}
	b := &v1alpha1.Binary{}
	strict, err := kjson.UnmarshalStrict(raw, b)
	if err != nil {
		return nil, fmt.Errorf("line %d: %s", lineOf(part, pathIn(err.Error())), plainWords(err))
	}
	var errs []error
	for _, e := range strict {
		errs = append(errs, fmt.Errorf("line %d: %w", lineOf(part, pathIn(e.Error())), e))
	}
	for _, e := range problems(b) {
		errs = append(errs, fmt.Errorf("line %d: %w", lineOf(part, e.Field), e))
	}
	return b, errors.Join(errs...)
}

// syntax says an error of the YAML reader in one line. The line in it may be
// the one before: that is the reader's own.
func syntax(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return errors.New(strings.TrimPrefix(strings.TrimPrefix(text, "yaml: "), "unmarshal errors: "))
}

func problems(b *v1alpha1.Binary) field.ErrorList {
	var errs field.ErrorList
	if want := v1alpha1.GroupVersion().String(); b.APIVersion != want {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), b.APIVersion, []string{want}))
	}
	if b.Kind != "Binary" {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), b.Kind, []string{"Binary"}))
	}
	return append(errs, b.Validate()...)
}

// pathIn finds the field that a message of the JSON reader names.
func pathIn(message string) string {
	if m := regexp.MustCompile(`field "([^"]+)"`).FindStringSubmatch(message); m != nil {
		return m[1]
	}
	if m := regexp.MustCompile(`Go struct field \w+\.(\S+) of type`).FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}

// plainWords says what the JSON reader could not read without Go's words.
func plainWords(err error) string {
	m := regexp.MustCompile(`cannot unmarshal (\S+) into Go struct field \w+\.(\S+) of type (\S+)`).FindStringSubmatch(err.Error())
	if m == nil {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	return fmt.Sprintf("%s: want %s, not a JSON %s", m[2], kind(m[3]), m[1])
}

func kind(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.Contains(goType, "int"):
		return "a number"
	case goType == "bool":
		return "true or false"
	case goType == "string", strings.HasPrefix(goType, "v1alpha1.") && strings.ToLower(goType) != goType && isText(goType):
		return "text"
	}
	return "fields"
}

func isText(goType string) bool {
	switch strings.TrimPrefix(goType, "v1alpha1.") {
	case "Profile", "Protocol", "Format", "Digest", "RestartPolicy", "Enforcement":
		return true
	}
	return false
}

// lineOf finds the line of a field such as spec.ports[0].name, or of the
// nearest one above it that is there.
func lineOf(n *yaml.Node, path string) int {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	line := n.Line
	for _, step := range regexp.MustCompile(`[^.\[\]]+`).FindAllString(path, -1) {
		key, value := childOf(n, step)
		if value == nil {
			break
		}
		n, line = value, value.Line
		if key != nil {
			line = key.Line
		}
	}
	return line
}

func childOf(n *yaml.Node, step string) (key, value *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
			return nil, n.Content[i]
		}
	}
	return nil, nil
}
