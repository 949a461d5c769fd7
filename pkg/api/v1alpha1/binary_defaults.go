package v1alpha1

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Defaulted returns a copy of the spec in which everything that was left out
// has its default. The times of checks and backoff are Marathon's.
func (s *BinarySpec) Defaulted() *BinarySpec {
	d := s.DeepCopy()
	if len(d.Command) == 0 && len(d.Fetch) == 1 {
		d.Command = []string{"./" + d.Fetch[0].programName()}
	}
	for i := range d.Ports {
		fill(&d.Ports[i].Protocol, ProtocolTCP)
	}
	d.Resources.fill()
	for i := range d.Rlimits {
		fillPointer(&d.Rlimits[i].Hard, d.Rlimits[i].Soft)
	}
	fill(&d.Network, NetworkHost)
	fill(&d.Profile, ProfileIsolated)
	fill(&d.Enforcement, EnforcementStrict)
	if len(d.Roles) == 0 {
		d.Roles = []string{RolePrivate}
	}
	fill(&d.RestartPolicy, RestartAlways)
	fillPointer(&d.TerminationGracePeriodSeconds, 30)
	if h := d.Health; h != nil {
		fillPointer(&h.GracePeriod, metav1.Duration{Duration: 5 * time.Minute})
		fillPointer(&h.Interval, metav1.Duration{Duration: time.Minute})
		fillPointer(&h.Timeout, metav1.Duration{Duration: 20 * time.Second})
		fillPointer(&h.MaxConsecutiveFailures, 3)
		h.fill(d.Ports)
	}
	if r := d.Readiness; r != nil {
		fillPointer(&r.Interval, metav1.Duration{Duration: 30 * time.Second})
		fillPointer(&r.Timeout, metav1.Duration{Duration: 10 * time.Second})
		r.fill(d.Ports)
	}
	fillPointer(&d.Update.MaxUnavailable, intstr.FromInt32(1))
	fillPointer(&d.Update.Deadline, metav1.Duration{Duration: 10 * time.Minute})
	return d
}

func (r *Resources) fill() {
	fillPointer(&r.CPU, resource.MustParse("1"))
	fillPointer(&r.Memory, resource.MustParse("128Mi"))
	fillPointer(&r.Pids, 256)
	fillPointer(&r.Disk, resource.MustParse("256Mi"))
}

func (p *Probe) fill(ports []Port) {
	first := ""
	if len(ports) > 0 {
		first = ports[0].Name
	}
	if p.HTTP != nil {
		fill(&p.HTTP.Port, first)
		fill(&p.HTTP.Path, "/")
		fill(&p.HTTP.Scheme, "HTTP")
	}
	if p.TCP != nil {
		fill(&p.TCP.Port, first)
	}
}

func fill[T ~string](value *T, otherwise T) {
	if *value == "" {
		*value = otherwise
	}
}

func fillPointer[T any](value **T, otherwise T) {
	if *value == nil {
		*value = &otherwise
	}
}

// BinaryName is what a Binary is called where nobody gave it a name: the
// program's name in the URL, without version and platform.
func BinaryName(url string) string {
	name := strings.ToLower((&Artifact{URL: url}).programName())
	name = strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(name, "-"), "-")
	if len(name) > 63 {
		name = strings.Trim(name[:63], "-")
	}
	return name
}

// programName guesses what the program in an artifact is called: path, or the
// URL's last part; for something packed without the packing's suffix and
// without what follows the first dash or dot with a digit, since archives are
// named NAME-VERSION.PLATFORM.
func (a *Artifact) programName() string {
	name := a.URL
	if u, err := url.Parse(a.URL); err == nil {
		name = u.Path
	}
	name = path.Base(name)
	packed := regexp.MustCompile(`\.(tar\.[a-z0-9]+|tgz|txz|tbz2?|tar|zip|gz|xz|zst|bz2)$`)
	if suffix := packed.FindString(name); suffix == "" {
		if a.Path != "" && !strings.HasSuffix(a.Path, "/") {
			return a.Path
		}
		return name
	}
	name = packed.ReplaceAllString(name, "")
	return regexp.MustCompile(`[-_.]v?[0-9].*$`).ReplaceAllString(name, "")
}
