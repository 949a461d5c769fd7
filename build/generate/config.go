package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const configHead = `<!-- Generated from pkg/api/v1alpha1/config_types.go by make generate; change it there. -->
# The configuration file

` + "`nodeagent run` and `nodeagent check` read `/etc/nodeagent/config.yaml`, or the file that `--config` names." + `
In the cluster it is the ConfigMap ` + "`nodeagent`" + ` of manifests/base. Every field has a default; an empty file is a valid one.
A mistake is told in one line with the path of its field, and the agent does not start.
A change takes effect when the agent is started again.

`

// config writes one row for each field of v1alpha1.Config.
func config(root string) ([]byte, error) {
	docs := map[string]string{}
	for _, file := range []string{"config_types.go", "notify_config.go"} {
		more, err := fieldDocs(filepath.Join(root, "pkg/api/v1alpha1", file))
		if err != nil {
			return nil, err
		}
		maps.Copy(docs, more)
	}
	out := bytes.NewBufferString(configHead)
	out.WriteString("| field | default | |\n|---|---|---|\n")
	if err := rows(out, docs, "", reflect.ValueOf(*v1alpha1.DefaultConfig())); err != nil {
		return nil, err
	}
	all, err := yaml.Marshal(v1alpha1.DefaultConfig())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "\nThe defaults as a file:\n```yaml\napiVersion: %s\nkind: Config\n%s```\n", v1alpha1.GroupVersion(), all)
	return out.Bytes(), nil
}

func rows(out *bytes.Buffer, docs map[string]string, prefix string, v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			continue // apiVersion and kind
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		doc := docs[v.Type().Name()+"."+f.Name]
		if doc == "" {
			return fmt.Errorf("%s.%s has no comment", v.Type().Name(), f.Name)
		}
		doc = regexp.MustCompile(`^`+name+` (is |are |says )?`).ReplaceAllString(doc, "") // as Go's custom has it
		if _, text := v.Field(i).Interface().(json.Marshaler); f.Type.Kind() == reflect.Struct && !text {
			if err := rows(out, docs, prefix+name+".", v.Field(i)); err != nil {
				return err
			}
			continue
		}
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			fmt.Fprintf(out, "| `%s%s` |  | %s |\n", prefix, name, doc)
			if err := rows(out, docs, prefix+name+"[].", reflect.Zero(f.Type.Elem())); err != nil {
				return err
			}
			continue
		}
		value, err := show(v.Field(i))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| `%s%s` | %s | %s |\n", prefix, name, value, doc)
	}
	return nil
}

// show writes a default as one would write it in the file.
func show(v reflect.Value) (string, error) {
	if v.IsZero() && v.Kind() != reflect.Bool {
		return "", nil
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(raw), `"`, ""), ",", ", ")
	if _, duration := v.Interface().(json.Marshaler); duration {
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
	}
	return "`" + text + "`", nil
}

// fieldDocs reads the comments on the fields of a file's structs, by
// Struct.Field, each in one line.
func fieldDocs(path string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, f := range fields.Fields.List {
			for _, name := range f.Names {
				docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
		return false
	})
	if len(docs) == 0 {
		return nil, errors.New(path + " holds no struct")
	}
	return docs, nil
}
