package runtime

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"
)

// ociSpec is the part of the OCI runtime spec that is read here. The whole of
// it is some ten kilobytes a container, most of it system call names.
type ociSpec struct {
	Mounts []ociMount `json:"mounts"`
	Linux  struct {
		CgroupsPath string `json:"cgroupsPath"`
	} `json:"linux"`
}

type ociMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// parseSpec reads the JSON that containerd keeps as a container's spec. A
// container need not have one.
func parseSpec(spec *anypb.Any) (ociSpec, error) {
	var parsed ociSpec
	if len(spec.GetValue()) == 0 {
		return parsed, nil
	}
	if err := json.Unmarshal(spec.GetValue(), &parsed); err != nil {
		return ociSpec{}, fmt.Errorf("cannot read the OCI spec (%s): %w", spec.GetTypeUrl(), err)
	}
	return parsed, nil
}

func (s ociSpec) cgroup() string { return s.Linux.CgroupsPath }

// binds returns what is bound in from the host, in the spec's order: a later
// mount may cover an earlier one.
func (s ociSpec) binds() []Mount {
	var binds []Mount
	for _, m := range s.Mounts {
		if !m.isBind() || !filepath.IsAbs(m.Source) {
			continue
		}
		binds = append(binds, Mount{Destination: m.Destination, Source: filepath.Clean(m.Source)})
	}
	return binds
}

// isBind follows runc: the type may say so, or an option with whatever type.
func (m ociMount) isBind() bool {
	if m.Type == "bind" || m.Type == "rbind" {
		return true
	}
	return slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
