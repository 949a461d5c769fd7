package v1alpha1

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the agent's image has no database of time zones

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DefaultConfig is what an empty file means, but for node, which only the host
// can tell. A file is read over it, so what a file says is taken as it is said:
// `horizon: 0s` is no way of asking for the default, but a mistake.
func DefaultConfig() *Config {
	return &Config{
		HostRoot: "/",
		Listen:   ":9456",
		Socket:   "/run/nodeagent/agent.sock",
		Containerd: ContainerdConfig{
			Socket:     "/run/containerd/containerd.sock",
			Namespaces: []string{"k8s.io"},
		},
		Disk: DiskConfig{
			Reserve: ReserveOfKubelet,
			Horizon: metav1.Duration{Duration: 30 * time.Minute},
			Minimum: "64Mi",
			CPU:     "2%",
			Method:  MethodAuto,
		},
		Restart: RestartConfig{
			Mode:              ModeAct,
			OnStall:           OnStallLeave,
			Cooldown:          metav1.Duration{Duration: time.Hour},
			Deadline:          metav1.Duration{Duration: 10 * time.Minute},
			ExcludeNamespaces: []string{metav1.NamespaceSystem, metav1.NamespacePublic, "kube-node-lease"},
			ApprovalTimeout:   metav1.Duration{Duration: 4 * time.Hour},
			Limits:            RestartLimits{Cluster: 5, Namespace: 2, Hourly: 30},
			Urgent:            metav1.Duration{Duration: 15 * time.Minute},
			TaintFillingNode:  true,
		},
		Launch: LaunchConfig{
			Folder:     "/etc/nodeagent/binaries.d",
			Root:       "/var/lib/nodeagent",
			State:      "/run/nodeagent",
			Ports:      "31000-32000",
			StoreBytes: "10Gi",
		},
	}
}

// Validate returns every field that cannot be used, each with its path and
// what it wants instead.
func (c *Config) Validate() field.ErrorList {
	var errs field.ErrorList
	if c.APIVersion != "" && c.APIVersion != GroupVersion().String() {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), c.APIVersion, []string{GroupVersion().String()}))
	}
	if c.Kind != "" && c.Kind != "Config" {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), c.Kind, []string{"Config"}))
	}
	if c.Node != "" {
		if len(validation.IsDNS1123Subdomain(c.Node)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("node"), c.Node, "want a DNS name in lower case, such as node-1"))
		}
	}
	errs = append(errs, absolute(field.NewPath("hostRoot"), c.HostRoot)...)
	if !address(c.Listen) {
		errs = append(errs, field.Invalid(field.NewPath("listen"), c.Listen, "want HOST:PORT or :PORT, the port from 0 to 65535"))
	}
	errs = append(errs, absolute(field.NewPath("socket"), c.Socket)...)
	errs = append(errs, c.Containerd.validate(field.NewPath("containerd"))...)
	errs = append(errs, c.Disk.validate(field.NewPath("disk"))...)
	errs = append(errs, c.Launch.validate(field.NewPath("launch"))...)
	errs = append(errs, c.Restart.validate(field.NewPath("restart"))...)
	return append(errs, c.Notify.validate(field.NewPath("notify"))...)
}

func (c *LaunchConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, absolute(at.Child("folder"), c.Folder)...)
	errs = append(errs, absolute(at.Child("root"), c.Root)...)
	errs = append(errs, absolute(at.Child("state"), c.State)...)
	if c.Cgroup != "" && !filepath.IsLocal(c.Cgroup) {
		errs = append(errs, field.Invalid(at.Child("cgroup"), c.Cgroup, "want a cgroup's name such as nodeagent, without / before it"))
	}
	if kind := filepath.Ext(c.Cgroup); kind == ".slice" || kind == ".service" || kind == ".scope" {
		errs = append(errs, field.Invalid(at.Child("cgroup"), c.Cgroup, "want no name of a systemd unit: systemd would take the tasks' limits away"))
	}
	if _, _, err := ParsePorts(c.Ports); err != nil {
		errs = append(errs, field.Invalid(at.Child("ports"), c.Ports, err.Error()))
	}
	if q, err := resource.ParseQuantity(c.StoreBytes); err != nil || q.Sign() <= 0 {
		errs = append(errs, field.Invalid(at.Child("storeBytes"), c.StoreBytes, "want a quantity such as 10Gi"))
	}
	return errs
}

// ParsePorts reads a range of ports, FIRST-LAST, both included.
func ParsePorts(s string) (first, last int32, err error) {
	a, b, ok := strings.Cut(s, "-")
	low, errLow := strconv.ParseUint(a, 10, 16)
	high, errHigh := strconv.ParseUint(b, 10, 16)
	if !ok || errLow != nil || errHigh != nil || low == 0 || low > high {
		return 0, 0, errors.New("want two ports such as 31000-32000")
	}
	return int32(low), int32(high), nil
}

func (c *ContainerdConfig) validate(at *field.Path) field.ErrorList {
	errs := absolute(at.Child("socket"), c.Socket)
	if len(c.Namespaces) == 0 {
		errs = append(errs, field.Required(at.Child("namespaces"), "want at least one, such as k8s.io"))
	}
	for i, ns := range c.Namespaces {
		if ns == "" || strings.ContainsAny(ns, "/ ") {
			errs = append(errs, field.Invalid(at.Child("namespaces").Index(i), ns, "want the name of a containerd namespace, such as k8s.io"))
		}
	}
	return errs
}

func (c *DiskConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if _, _, err := ParseReserve(c.Reserve); err != nil && c.Reserve != ReserveOfKubelet {
		errs = append(errs, field.Invalid(at.Child("reserve"), c.Reserve, err.Error()))
	}
	if q, err := resource.ParseQuantity(c.Minimum); err != nil || q.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("minimum"), c.Minimum, "want a quantity such as 64Mi"))
	}
	if s, err := parsePercent(c.CPU); err != nil || s < 0.001 {
		errs = append(errs, field.Invalid(at.Child("cpu"), c.CPU, "want a share of one core between 0.1% and 100%, such as 2%"))
	}
	if c.Method != MethodAuto && c.Method != MethodWalk {
		errs = append(errs, field.NotSupported(at.Child("method"), c.Method, []DiskMethod{MethodAuto, MethodWalk}))
	}
	if d := c.Horizon.Duration; d < time.Minute || d > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("horizon"), d.String(), "want between 1m and 168h"))
	}
	return errs
}

func (c *RestartConfig) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if modes := []RestartMode{ModeAct, ModeApprove, ModeObserve}; !slices.Contains(modes, c.Mode) {
		errs = append(errs, field.NotSupported(at.Child("mode"), c.Mode, modes))
	}
	if choices := []OnStall{OnStallLeave, OnStallRollback}; !slices.Contains(choices, c.OnStall) {
		errs = append(errs, field.NotSupported(at.Child("onStall"), c.OnStall, choices))
	}
	if d := c.Cooldown.Duration; d < time.Second {
		errs = append(errs, field.Invalid(at.Child("cooldown"), d.String(), "want at least 1s"))
	}
	if d := c.Deadline.Duration; d < 10*time.Second {
		errs = append(errs, field.Invalid(at.Child("deadline"), d.String(), "want at least 10s"))
	}
	for i, ns := range c.ExcludeNamespaces {
		if len(validation.IsDNS1123Label(ns)) > 0 {
			errs = append(errs, field.Invalid(at.Child("excludeNamespaces").Index(i), ns, "want the name of a Kubernetes namespace"))
		}
	}
	if d := c.ApprovalTimeout.Duration; d < time.Minute || d > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("approvalTimeout"), d.String(), "want between 1m and 168h"))
	}
	if d := c.Urgent.Duration; d < 0 || d > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("urgent"), d.String(), "want between 0s and 168h"))
	}
	errs = append(errs, c.Limits.validate(at.Child("limits"))...)
	for i := range c.Windows {
		errs = append(errs, c.Windows[i].validate(at.Child("windows").Index(i))...)
	}
	return errs
}

func (c *RestartLimits) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, limit := range []struct {
		name  string
		value int
	}{{"cluster", c.Cluster}, {"namespace", c.Namespace}, {"hourly", c.Hourly}} {
		// The most stands in one object: a few hundred bytes for each.
		if limit.value < 1 || limit.value > 1000 {
			errs = append(errs, field.Invalid(at.Child(limit.name), limit.value, "want between 1 and 1000"))
		}
	}
	return errs
}

func (c *RestartWindow) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if _, err := cron.ParseStandard(c.Start); err != nil || strings.Contains(c.Start, "TZ=") || strings.HasPrefix(c.Start, "@every") {
		errs = append(errs, field.Invalid(at.Child("start"), c.Start, "want a cron line of five fields such as 0 22 * * 1-5"))
	}
	if d := c.Duration.Duration; d < time.Minute || d > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("duration"), d.String(), "want between 1m and 168h"))
	}
	if _, err := time.LoadLocation(c.TimeZone); err != nil || c.TimeZone == "Local" {
		errs = append(errs, field.Invalid(at.Child("timeZone"), c.TimeZone, "want a name of the time zone database, such as Europe/Berlin"))
	}
	return errs
}

func address(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func absolute(at *field.Path, path string) field.ErrorList {
	if !filepath.IsAbs(path) {
		return field.ErrorList{field.Invalid(at, path, "want an absolute path")}
	}
	return nil
}

// ReserveOfKubelet stands for what this node's kubelet evicts at.
const ReserveOfKubelet = "kubelet"

var errReserve = errors.New("want kubelet, a percentage below 100% such as 15%, or a quantity such as 20Gi")

// ParseReserve reads what has to stay free on a file system: a percentage of
// its size (15%) or a quantity (20Gi). At least one of the two results is zero.
func ParseReserve(s string) (percent float64, bytes int64, err error) {
	if strings.HasSuffix(s, "%") {
		share, err := parsePercent(s)
		if err != nil || share == 1 {
			return 0, 0, errReserve
		}
		return 100 * share, 0, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() < 0 {
		return 0, 0, errReserve
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
