package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// configShape is the default configuration as JSON has it, with every field
// there: what a file may hold, and an example of each value.
func configShape() (any, error) {
	cfg := v1alpha1.DefaultConfig()
	cfg.APIVersion, cfg.Kind, cfg.Node = v1alpha1.GroupVersion().String(), "Config", "node-1"
	cfg.Notify = v1alpha1.ExampleNotify()
	cfg.Restart.Windows = []v1alpha1.RestartWindow{{Start: "0 22 * * 1-5", Duration: metav1.Duration{Duration: 8 * time.Hour}, TimeZone: "Europe/Berlin"}}
	cfg.Launch.Cgroup = "nodeagent"
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	var shape any
	return shape, json.Unmarshal(raw, &shape)
}

// mismatches compares a file with that shape. The JSON reader would stop at the
// first thing it cannot read, and not name the field of a bad duration.
// What was left empty is taken out of the file: it keeps its default.
func mismatches(at *field.Path, file, shape any) field.ErrorList {
	if file == nil {
		return nil
	}
	switch want := shape.(type) {
	case map[string]any:
		fields, ok := file.(map[string]any)
		if !ok {
			return invalid(at, file, "want fields: "+names(want))
		}
		return unlikeFields(at, fields, want)
	case []any:
		items, ok := file.([]any)
		if !ok {
			return invalid(at, file, "want a list")
		}
		return unlikeItems(at, items, want[0])
	case string:
		return unlikeText(at, file, want)
	case bool:
		if _, ok := file.(bool); !ok {
			return invalid(at, file, "want true or false")
		}
	case float64:
		if n, ok := file.(float64); !ok || n != float64(int64(n)) {
			return invalid(at, file, fmt.Sprintf("want a whole number such as %v", want))
		}
	}
	return nil
}

func unlikeFields(at *field.Path, fields, want map[string]any) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		shape, known := want[name]
		switch {
		case !known:
			errs = append(errs, &field.Error{Type: field.ErrorTypeForbidden, Field: child(at, name).String(), BadValue: name,
				Detail: "unknown field: want one of " + names(want)})
		case fields[name] == nil:
			delete(fields, name)
		default:
			errs = append(errs, mismatches(child(at, name), fields[name], shape)...)
		}
	}
	return errs
}

func unlikeItems(at *field.Path, items []any, want any) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		if item == nil {
			errs = append(errs, invalid(at.Index(i), item, fmt.Sprintf("want text such as %q", want))...)
			continue
		}
		errs = append(errs, mismatches(at.Index(i), item, want)...)
	}
	return errs
}

func unlikeText(at *field.Path, file any, example string) field.ErrorList {
	text, ok := file.(string)
	if !ok {
		return invalid(at, file, fmt.Sprintf("want text such as %q", example))
	}
	if _, err := time.ParseDuration(example); err != nil {
		return nil
	}
	if _, err := time.ParseDuration(text); err != nil {
		return invalid(at, text, fmt.Sprintf("want a duration such as %s", example))
	}
	return nil
}

func invalid(at *field.Path, value any, detail string) field.ErrorList {
	if at == nil {
		return field.ErrorList{field.Invalid(field.NewPath("the file"), value, detail)}
	}
	return field.ErrorList{field.Invalid(at, value, detail)}
}

func child(at *field.Path, name string) *field.Path {
	if at == nil {
		return field.NewPath(name)
	}
	return at.Child(name)
}

func names(fields map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}
