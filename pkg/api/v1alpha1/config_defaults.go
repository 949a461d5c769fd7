package v1alpha1

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SetDefaults fills every field that was left empty, but for node, which only
// the host can tell.
func (c *Config) SetDefaults() {
	setDefault(&c.HostRoot, "/")
	setDefault(&c.Listen, ":9456")
	setDefault(&c.Containerd.Socket, "/run/containerd/containerd.sock")
	if len(c.Containerd.Namespaces) == 0 {
		c.Containerd.Namespaces = []string{"k8s.io"}
	}
	setDefault(&c.Disk.Reserve, "15%")
	setDefault(&c.Disk.Horizon, metav1.Duration{Duration: 30 * time.Minute})
	setDefault(&c.Disk.Minimum, "64Mi")
	setDefault(&c.Disk.CPU, "2%")
	setDefault(&c.Restart.Mode, ModeAct)
	setDefault(&c.Restart.Cooldown, metav1.Duration{Duration: time.Hour})
	setDefault(&c.Restart.Deadline, metav1.Duration{Duration: 10 * time.Minute})
	if c.Restart.ExcludeNamespaces == nil {
		c.Restart.ExcludeNamespaces = []string{metav1.NamespaceSystem, metav1.NamespacePublic, "kube-node-lease"}
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate returns every field that cannot be used, each with its path. It
// expects SetDefaults to have run.
func (c *Config) Validate() field.ErrorList {
	var errs field.ErrorList
	if c.APIVersion != "" && c.APIVersion != GroupVersion().String() {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), c.APIVersion, []string{GroupVersion().String()}))
	}
	if c.Kind != "" && c.Kind != "Config" {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), c.Kind, []string{"Config"}))
	}
	if c.Node != "" {
		for _, m := range validation.IsDNS1123Subdomain(c.Node) {
			errs = append(errs, field.Invalid(field.NewPath("node"), c.Node, m))
		}
	}
	errs = append(errs, absolute(field.NewPath("hostRoot"), c.HostRoot)...)
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("listen"), c.Listen, "want HOST:PORT or :PORT"))
	}
	errs = append(errs, c.Containerd.validate(field.NewPath("containerd"))...)
	errs = append(errs, c.Disk.validate(field.NewPath("disk"))...)
	return append(errs, c.Restart.validate(field.NewPath("restart"))...)
}

func (c *ContainerdConfig) validate(at *field.Path) field.ErrorList {
	errs := absolute(at.Child("socket"), c.Socket)
	for i, ns := range c.Namespaces {
		if ns == "" || strings.ContainsAny(ns, "/ ") {
			errs = append(errs, field.Invalid(at.Child("namespaces").Index(i), ns, "is no containerd namespace"))
		}
	}
	return errs
}

func (c *DiskConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if _, _, err := ParseReserve(c.Reserve); err != nil {
		errs = append(errs, field.Invalid(at.Child("reserve"), c.Reserve, err.Error()))
	}
	if q, err := resource.ParseQuantity(c.Minimum); err != nil || q.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("minimum"), c.Minimum, "want a quantity such as 64Mi"))
	}
	if s, err := parsePercent(c.CPU); err != nil || s == 0 {
		errs = append(errs, field.Invalid(at.Child("cpu"), c.CPU, "want a share of one core between 0.1% and 100%, such as 2%"))
	}
	if d := c.Horizon.Duration; d < time.Minute || d > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("horizon"), d.String(), "want between 1m and 168h"))
	}
	return errs
}

func (c *RestartConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Mode != ModeAct && c.Mode != ModeObserve {
		errs = append(errs, field.NotSupported(at.Child("mode"), c.Mode, []RestartMode{ModeAct, ModeObserve}))
	}
	if d := c.Cooldown.Duration; d < 0 {
		errs = append(errs, field.Invalid(at.Child("cooldown"), d.String(), "want zero or more"))
	}
	if d := c.Deadline.Duration; d < 10*time.Second {
		errs = append(errs, field.Invalid(at.Child("deadline"), d.String(), "want at least 10s"))
	}
	for i, ns := range c.ExcludeNamespaces {
		for _, m := range validation.IsDNS1123Label(ns) {
			errs = append(errs, field.Invalid(at.Child("excludeNamespaces").Index(i), ns, m))
		}
	}
	return errs
}

func absolute(at *field.Path, path string) field.ErrorList {
	if !filepath.IsAbs(path) {
		return field.ErrorList{field.Invalid(at, path, "want an absolute path")}
	}
	return nil
}

// ParseReserve reads what has to stay free on a file system: a percentage of
// its size (15%) or a quantity (20Gi). One of the two results is zero.
func ParseReserve(s string) (percent float64, bytes int64, err error) {
	if strings.HasSuffix(s, "%") {
		share, err := parsePercent(s)
		return 100 * share, 0, err
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() < 0 {
		return 0, 0, fmt.Errorf("want a percentage such as 15%% or a quantity such as 20Gi")
	}
	return 0, q.Value(), nil
}

// CPUShare returns cpu as a share of one core, 0 to 1.
func (c *DiskConfig) CPUShare() float64 {
	share, _ := parsePercent(c.CPU) // Validate has seen it
	return share
}

func parsePercent(s string) (float64, error) {
	n, ok := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(n, 64)
	if !ok || err != nil || f < 0 || f > 100 || f != f {
		return 0, fmt.Errorf("want a percentage between 0%% and 100%%")
	}
	return f / 100, nil
}
