package v1alpha1

import (
	"iter"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What is said of a Binary that cannot be used. The rules of the CRD have the
// same words; a test holds the two together and asks a real API server.
const (
	wantName          = "want a name of at most 63 lower case letters, digits and '-': it becomes the name of a folder and a cgroup"
	wantArtifact      = "want at least one artifact to fetch"
	wantCommand       = "want a command: of several artifacts it cannot be told which one is run"
	wantPortOnce      = "want each port once"
	wantPortNameOnce  = "want each port's name once"
	wantHealthPort    = "want health.port to be the name of one of the ports"
	wantReadyPort     = "want readiness.port to be the name of one of the ports"
	wantSomePort      = "want at least one port: an http or tcp check asks there"
	wantRoles         = "want roles such as public, or '*'"
	wantURL           = "want an http, https, oci or file URL"
	wantMirrors       = "want mirrors to be http, https, oci or file URLs"
	wantDigest        = "want sha256, sha512 or a signature: without one nothing tells whether it is the right program. insecure: true runs it all the same"
	wantVouched       = "want no insecure beside a digest or a signature: take one of them away"
	wantSHA256        = "want sha256 as 64 lower case hexadecimal digits"
	wantSHA512        = "want sha512 as 128 lower case hexadecimal digits"
	wantArchitecture  = "want digests by architecture as Go names it (amd64, arm64), or '*'"
	wantInside        = "want a path inside the sandbox folder, without '..'"
	wantMode          = "want an octal mode such as 0755"
	wantEnvName       = "want a variable's name of letters, digits and '_'"
	wantOtherEnv      = "want another name: nodeagent sets this variable"
	wantPortName      = "want a port's name of at most 15 lower case letters, digits and '-'"
	wantTCP           = "want protocol TCP: only such a socket can be held"
	wantMore          = "want more than 0"
	wantRlimitOnce    = "want each rlimit once"
	wantSoftBelow     = "want a soft limit that is not above the hard one"
	wantUser          = "want a user's name, a number, or UID:GID"
	wantNoPorts       = "want no ports with network none: nobody could reach them"
	wantCPUSet        = "want cores such as 0-3,6"
	wantDevice        = "want a device such as /dev/sda, or its numbers as 8:0"
	wantOneProbe      = "want exactly one of http, tcp and exec"
	wantProbeTimes    = "want an interval and a timeout of at least 100ms"
	wantUnavailable   = "want a number of nodes above 0, or a percentage such as 10%"
	shortestProbeTime = 100 * time.Millisecond
)

// Validate returns every field that cannot be used, each with its path and
// what it wants instead. Limits of size that only protect the API server are
// not looked at here.
func (b *Binary) Validate() field.ErrorList {
	var errs field.ErrorList
	if !matches(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, b.Name) || len(b.Name) > 63 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), b.Name, wantName))
	}
	return append(errs, b.Spec.validate(field.NewPath("spec"))...)
}

func (s *BinarySpec) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(ok bool, at *field.Path, value any, want string) {
		if !ok {
			errs = append(errs, field.Invalid(at, value, want))
		}
	}
	check(len(s.Fetch) > 0, at.Child("fetch"), len(s.Fetch), wantArtifact)
	check(len(s.Fetch) <= 1 || len(s.Command) > 0, at.Child("command"), "", wantCommand)
	for i := range s.Fetch {
		errs = append(errs, s.Fetch[i].validate(at.Child("fetch").Index(i))...)
	}
	for i, e := range s.Env {
		at := at.Child("env").Index(i)
		check(matches(`^[A-Za-z_][A-Za-z0-9_]*$`, e.Name), at, e.Name, wantEnvName)
		check(!matches(`^(HOST|PORTS|PORT[0-9]+|PORT_.*|MESOS_.*|LISTEN_.*|NODEAGENT_.*)$`, e.Name), at, e.Name, wantOtherEnv)
	}
	errs = append(errs, validatePorts(at.Child("ports"), s.Ports)...)
	errs = append(errs, s.Resources.validate(at.Child("resources"))...)
	errs = append(errs, validateRlimits(at.Child("rlimits"), s.Rlimits)...)
	check(s.User == "" || matches(`^([0-9]+(:[0-9]+)?|[a-z_][a-z0-9_-]*)$`, s.User), at.Child("user"), s.User, wantUser)
	errs = append(errs, oneOf(at.Child("network"), s.Network, NetworkHost, NetworkNone)...)
	check(s.Network != NetworkNone || len(s.Ports) == 0, at, s.Network, wantNoPorts)
	errs = append(errs, oneOf(at.Child("profile"), s.Profile, ProfileHostObserver, ProfileIsolated, ProfilePrivileged)...)
	errs = append(errs, oneOf(at.Child("enforcement"), s.Enforcement, EnforcementBestEffort, EnforcementStrict)...)
	errs = append(errs, oneOf(at.Child("restartPolicy"), s.RestartPolicy, RestartAlways, RestartNever, RestartOnFailure)...)
	for _, r := range s.Roles {
		check(r == "*" || matches(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`, r), at.Child("roles"), r, wantRoles)
	}
	if g := s.TerminationGracePeriodSeconds; g != nil {
		errs = append(errs, between(at.Child("terminationGracePeriodSeconds"), *g, 0, 3600)...)
	}
	errs = append(errs, s.validateChecks(at)...)
	if m := s.Update.MaxUnavailable; m != nil {
		fits := m.IntVal > 0
		if m.Type == intstr.String {
			fits = matches(`^([1-9][0-9]?|100)%$`, m.StrVal)
		}
		check(fits, at.Child("update", "maxUnavailable"), m.String(), wantUnavailable)
	}
	errs = append(errs, durations(at.Child("update"), map[string]*metav1.Duration{"deadline": s.Update.Deadline})...)
	return errs
}

func (a *Artifact) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(ok bool, value any, want string) {
		if !ok {
			errs = append(errs, field.Invalid(at, value, want))
		}
	}
	const aURL = `^((https?|oci([+]http)?)://[^/ ]+/|file:///)[^ ]+$`
	check(matches(aURL, a.URL), a.URL, wantURL)
	for _, m := range a.Mirrors {
		check(matches(aURL, m), m, wantMirrors)
	}
	const byDigest = `^oci([+]http)?://[^ ]+@sha256:[0-9a-f]{64}(#[^ ]*)?$`
	vouched := len(a.SHA256) > 0 || len(a.SHA512) > 0 || a.Signature != nil || matches(byDigest, a.URL)
	check(vouched || a.Insecure, a.URL, wantDigest)
	check(!vouched || !a.Insecure, a.URL, wantVouched)
	for arch, d := range byName(a.SHA256) {
		check(matches(`^[0-9a-f]{64}$`, string(d)), d, wantSHA256)
		check(arch == "*" || matches(`^[a-z0-9]+$`, arch), arch, wantArchitecture)
	}
	for arch, d := range byName(a.SHA512) {
		check(matches(`^[0-9a-f]{128}$`, string(d)), d, wantSHA512)
		check(arch == "*" || matches(`^[a-z0-9]+$`, arch), arch, wantArchitecture)
	}
	check(!strings.HasPrefix(a.Path, "/") && !slices.Contains(strings.Split(a.Path, "/"), ".."), a.Path, wantInside)
	check(a.Mode == "" || matches(`^0?[0-7]{3}$`, a.Mode), a.Mode, wantMode)
	errs = append(errs, oneOf(at.Child("format"), a.Format, Formats()...)...)
	return append(errs, between(at.Child("stripComponents"), int64(a.StripComponents), 0, 16)...)
}

// Formats are the ways in which an artifact may be packed, in order of the
// alphabet.
func Formats() []Format {
	return []Format{"bz2", "gz", "raw", "tar", "tar.bz2", "tar.gz", "tar.xz", "tar.zst", "xz", "zip", "zst"}
}

func validatePorts(at *field.Path, ports []Port) field.ErrorList {
	var errs field.ErrorList
	type number struct {
		port     int32
		protocol Protocol
	}
	names, numbers := map[string]bool{}, map[number]bool{}
	for i, p := range ports {
		at := at.Index(i)
		fill(&p.Protocol, ProtocolTCP)
		if !matches(`^[a-z]([-a-z0-9]*[a-z0-9])?$`, p.Name) || len(p.Name) > 15 {
			errs = append(errs, field.Invalid(at, p.Name, wantPortName))
		}
		if names[p.Name] {
			errs = append(errs, field.Invalid(at, p.Name, wantPortNameOnce))
		}
		n := number{p.Port, p.Protocol}
		if p.Port != 0 && numbers[n] {
			errs = append(errs, field.Invalid(at, p.Port, wantPortOnce))
		}
		names[p.Name], numbers[n] = true, true
		errs = append(errs, between(at.Child("port"), int64(p.Port), 0, 65535)...)
		errs = append(errs, oneOf(at.Child("protocol"), p.Protocol, ProtocolTCP, ProtocolUDP)...)
		if p.Held && p.Protocol == ProtocolUDP {
			errs = append(errs, field.Invalid(at, p.Name, wantTCP))
		}
	}
	return errs
}

func (r *Resources) validate(at *field.Path) field.ErrorList {
	errs := moreThanZero(at, map[string]*resource.Quantity{"cpu": r.CPU, "memory": r.Memory, "disk": r.Disk})
	if r.Pids != nil {
		errs = append(errs, between(at.Child("pids"), *r.Pids, 1, 4194304)...)
	}
	if r.CPUSet != "" && !matches(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`, r.CPUSet) {
		errs = append(errs, field.Invalid(at.Child("cpuset"), r.CPUSet, wantCPUSet))
	}
	for i, l := range r.IO {
		at := at.Child("io").Index(i)
		if !matches(`^([0-9]+:[0-9]+|/dev/[A-Za-z0-9_./-]+)$`, l.Device) {
			errs = append(errs, field.Invalid(at, l.Device, wantDevice))
		}
		errs = append(errs, moreThanZero(at, map[string]*resource.Quantity{
			"readBytesPerSecond": l.ReadBytesPerSecond, "writeBytesPerSecond": l.WriteBytesPerSecond,
		})...)
		for name, n := range byName(map[string]*int64{
			"readOperationsPerSecond": l.ReadOperationsPerSecond, "writeOperationsPerSecond": l.WriteOperationsPerSecond,
		}) {
			if n != nil {
				errs = append(errs, between(at.Child(name), *n, 1, math.MaxInt64)...)
			}
		}
	}
	return errs
}

func moreThanZero(at *field.Path, all map[string]*resource.Quantity) field.ErrorList {
	var errs field.ErrorList
	for name, q := range byName(all) {
		if q != nil && q.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Child(name), q.String(), wantMore))
		}
	}
	return errs
}

// RlimitNames are those of setrlimit(2), in order of the alphabet.
func RlimitNames() []string {
	return []string{
		"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
	}
}

func validateRlimits(at *field.Path, all []Rlimit) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range all {
		if seen[r.Name] {
			errs = append(errs, field.Invalid(at, r.Name, wantRlimitOnce))
		}
		seen[r.Name] = true
		at := at.Index(i)
		if !slices.Contains(RlimitNames(), r.Name) {
			errs = append(errs, field.NotSupported(at.Child("name"), r.Name, RlimitNames()))
		}
		errs = append(errs, between(at.Child("soft"), r.Soft, 0, math.MaxInt64)...)
		if r.Hard == nil {
			continue
		}
		errs = append(errs, between(at.Child("hard"), *r.Hard, 0, math.MaxInt64)...)
		if r.Soft > *r.Hard {
			errs = append(errs, field.Invalid(at, r.Soft, wantSoftBelow))
		}
	}
	return errs
}

// validateChecks looks at health and readiness, and at the ports they ask.
func (s *BinarySpec) validateChecks(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if h := s.Health; h != nil {
		at := at.Child("health")
		errs = append(errs, h.validate(at, s.Ports, wantHealthPort, h.Interval, h.Timeout)...)
		errs = append(errs, durations(at, map[string]*metav1.Duration{"delay": h.Delay, "gracePeriod": h.GracePeriod})...)
		if n := h.MaxConsecutiveFailures; n != nil {
			errs = append(errs, between(at.Child("maxConsecutiveFailures"), int64(*n), 0, 1000)...)
		}
	}
	if r := s.Readiness; r != nil {
		errs = append(errs, r.validate(at.Child("readiness"), s.Ports, wantReadyPort, r.Interval, r.Timeout)...)
	}
	return errs
}

func (p *Probe) validate(at *field.Path, ports []Port, wantPort string, times ...*metav1.Duration) field.ErrorList {
	var errs field.ErrorList
	given := 0
	for _, there := range []bool{p.HTTP != nil, p.TCP != nil, p.Exec != nil} {
		if there {
			given++
		}
	}
	if given != 1 {
		errs = append(errs, field.Invalid(at, given, wantOneProbe))
	}
	if slices.ContainsFunc(times, func(d *metav1.Duration) bool { return d != nil && d.Duration < shortestProbeTime }) {
		errs = append(errs, field.Invalid(at, "", wantProbeTimes))
	}
	if p.Exec == nil && len(ports) == 0 {
		errs = append(errs, field.Invalid(at, "", wantSomePort))
	}
	for _, name := range p.portNames() {
		if !slices.ContainsFunc(ports, func(q Port) bool { return q.Name == name }) {
			errs = append(errs, field.Invalid(at.Child("port"), name, wantPort))
		}
	}
	if p.HTTP != nil {
		errs = append(errs, oneOf(at.Child("http", "scheme"), p.HTTP.Scheme, "HTTP", "HTTPS")...)
	}
	if p.Exec != nil && len(p.Exec.Command) == 0 {
		errs = append(errs, field.Invalid(at.Child("exec", "command"), 0, "should have at least 1 items"))
	}
	return errs
}

func (p *Probe) portNames() []string {
	var names []string
	if p.HTTP != nil && p.HTTP.Port != "" {
		names = append(names, p.HTTP.Port)
	}
	if p.TCP != nil && p.TCP.Port != "" {
		names = append(names, p.TCP.Port)
	}
	return names
}

// oneOf and between have the words of the API server's own schema.
func oneOf[T ~string](at *field.Path, value T, known ...T) field.ErrorList {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, known)}
}

func durations(at *field.Path, all map[string]*metav1.Duration) field.ErrorList {
	const pattern = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	var errs field.ErrorList
	for name, d := range byName(all) {
		if d != nil && !matches(pattern, d.Duration.String()) {
			errs = append(errs, field.Invalid(at.Child(name), d.Duration.String(), "should match '"+pattern+"'"))
		}
	}
	return errs
}

// byName goes through a map in the order of its keys: what is wrong is told in
// the same order each time.
func byName[V any](all map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(name, all[name]) {
				return
			}
		}
	}
}

func between(at *field.Path, n, low, high int64) field.ErrorList {
	switch {
	case n < low:
		return field.ErrorList{field.Invalid(at, n, "should be greater than or equal to "+strconv.FormatInt(low, 10))}
	case n > high:
		return field.ErrorList{field.Invalid(at, n, "should be less than or equal to "+strconv.FormatInt(high, 10))}
	}
	return nil
}

func matches(pattern, s string) bool {
	return regexp.MustCompile(pattern).MatchString(s)
}
