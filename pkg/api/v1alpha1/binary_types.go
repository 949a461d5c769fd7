package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Binary is a program that is fetched from a URL and run on every node whose
// role it asks for, without an image and without a pod. The same text is an
// object in the API server and a file in a node's folder. What is left out has
// the default that Defaulted fills in; what cannot be used is told by Validate
// and by the API server in the same words.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=binaries,singular=binary,scope=Cluster,categories=nodeagent
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="want a name of at most 63 lower case letters, digits and '-': it becomes the name of a folder and a cgroup"
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Up",type=integer,JSONPath=`.status.up`
// +kubebuilder:printcolumn:name="Updated",type=integer,JSONPath=`.status.updated`
// +kubebuilder:printcolumn:name="Roles",type=string,JSONPath=`.spec.roles`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Profile",type=string,JSONPath=`.spec.profile`,priority=1
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.fetch[0].url`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`,priority=1
type Binary struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BinarySpec   `json:"spec"`
	Status BinaryStatus `json:"status,omitempty"`
}

// BinaryList is what the API server answers to a list of Binaries.
//
// +kubebuilder:object:root=true
type BinaryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Binary `json:"items"`
}

// BinarySpec says what is fetched, how it runs, and on which nodes.
//
// +kubebuilder:validation:XValidation:rule="size(self.fetch) > 0",message="want at least one artifact to fetch"
// +kubebuilder:validation:XValidation:rule="(has(self.command) && size(self.command) > 0) || size(self.fetch) == 1",message="want a command: of several artifacts it cannot be told which one is run"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || self.ports.all(p, self.ports.exists_one(q, q.name == p.name))",message="want each port's name once"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || self.ports.all(p, p.port == 0 || self.ports.exists_one(q, q.port == p.port && (has(q.protocol) ? q.protocol : 'TCP') == (has(p.protocol) ? p.protocol : 'TCP')))",message="want each port once"
// +kubebuilder:validation:XValidation:rule="!has(self.health) || ((has(self.health.http) && has(self.health.http.port)) ? (has(self.ports) && self.ports.exists(p, p.name == self.health.http.port)) : true) && ((has(self.health.tcp) && has(self.health.tcp.port)) ? (has(self.ports) && self.ports.exists(p, p.name == self.health.tcp.port)) : true)",message="want health.port to be the name of one of the ports"
// +kubebuilder:validation:XValidation:rule="!has(self.readiness) || ((has(self.readiness.http) && has(self.readiness.http.port)) ? (has(self.ports) && self.ports.exists(p, p.name == self.readiness.http.port)) : true) && ((has(self.readiness.tcp) && has(self.readiness.tcp.port)) ? (has(self.ports) && self.ports.exists(p, p.name == self.readiness.tcp.port)) : true)",message="want readiness.port to be the name of one of the ports"
// +kubebuilder:validation:XValidation:rule="(!has(self.health) || has(self.health.exec) || (has(self.ports) && size(self.ports) > 0)) && (!has(self.readiness) || has(self.readiness.exec) || (has(self.ports) && size(self.ports) > 0))",message="want at least one port: an http or tcp check asks there"
// +kubebuilder:validation:XValidation:rule="!has(self.network) || self.network != 'none' || !has(self.ports) || size(self.ports) == 0",message="want no ports with network none: nobody could reach them"
type BinarySpec struct {
	// fetch is what is fetched before the program can run, at least one.
	// +kubebuilder:validation:MaxItems=16
	Fetch []Artifact `json:"fetch"`

	// command is the program with its arguments, relative to the sandbox
	// folder: ./node_exporter. $(NAME) is replaced by a variable of the task's
	// environment. Default: the one artifact itself.
	// +kubebuilder:validation:MaxItems=256
	// +optional
	Command []string `json:"command,omitempty"`

	// env are variables of the task besides those that nodeagent sets.
	// +kubebuilder:validation:MaxItems=256
	// +optional
	Env []EnvVar `json:"env,omitempty"`

	// ports are the host's ports that the task uses. They are its own as long
	// as it is wanted; $PORT0, $PORT1, … and $PORT_NAME tell it which.
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Ports []Port `json:"ports,omitempty"`

	// resources are the most that the task may use.
	// +optional
	Resources Resources `json:"resources,omitempty"`

	// rlimits are limits of each of its processes, as setrlimit(2) has them.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, self.exists_one(q, q.name == r.name))",message="want each rlimit once"
	// +optional
	Rlimits []Rlimit `json:"rlimits,omitempty"`

	// user is whom it runs as: a number, UID:GID, or a name of the node's
	// /etc/passwd. root is, in the profile isolated, root of the task's own user
	// namespace and nobody on the node. Default: a uid that is this task's alone.
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+(:[0-9]+)?|[a-z_][a-z0-9_-]*)$')",message="want a user's name, a number, or UID:GID"
	// +kubebuilder:validation:MaxLength=64
	// +optional
	User string `json:"user,omitempty"`

	// network is host (the default) or none: loopback alone.
	// +optional
	Network Network `json:"network,omitempty"`

	// profile is isolated (the default), host-observer (it sees the real /proc,
	// /sys and mounts, read-only) or privileged (which the node's configuration
	// has to allow).
	// +kubebuilder:default=isolated
	// +optional
	Profile Profile `json:"profile,omitempty"`

	// enforcement is Strict (the default: what cannot be enforced on a node
	// fails the launch there) or BestEffort (it is told and the task runs).
	// +optional
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// roles are the values of the node's label nodeagent.dev/role on which the
	// task runs; "*" is any. A node without the label is private.
	// Default: [private].
	// +kubebuilder:default={private}
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, r == '*' || r.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",message="want roles such as public, or '*'"
	// +kubebuilder:validation:items:MaxLength=63
	// +optional
	Roles []string `json:"roles,omitempty"`

	// health tells whether a task that runs does its work. Without it one that
	// runs is healthy.
	// +optional
	Health *HealthCheck `json:"health,omitempty"`

	// readiness has to pass once before a task that was started is up.
	// +optional
	Readiness *ReadinessCheck `json:"readiness,omitempty"`

	// restartPolicy is Always (the default), OnFailure (not after exit code 0)
	// or Never.
	// +optional
	RestartPolicy RestartPolicy `json:"restartPolicy,omitempty"`

	// terminationGracePeriodSeconds is the time between SIGTERM and the end of
	// the whole cgroup. Default 30.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	// +optional
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// update says how a change of this spec reaches the nodes.
	// +optional
	Update Update `json:"update,omitempty"`
}

// Artifact is one file or archive that is fetched into the sandbox folder.
//
// +kubebuilder:validation:XValidation:rule="self.url.matches('^((https?|oci([+]http)?)://[^/ ]+/|file:///)[^ ]+$')",message="want an http, https, oci or file URL"
// +kubebuilder:validation:XValidation:rule="!has(self.mirrors) || self.mirrors.all(m, m.matches('^((https?|oci([+]http)?)://[^/ ]+/|file:///)[^ ]+$'))",message="want mirrors to be http, https, oci or file URLs"
// +kubebuilder:validation:XValidation:rule="(has(self.sha256) && size(self.sha256) > 0) || (has(self.sha512) && size(self.sha512) > 0) || has(self.signature) || self.url.matches('^oci([+]http)?://[^ ]+@sha256:[0-9a-f]{64}(#[^ ]*)?$') || (has(self.insecure) && self.insecure)",message="want sha256, sha512 or a signature: without one nothing tells whether it is the right program. insecure: true runs it all the same"
// +kubebuilder:validation:XValidation:rule="!has(self.sha256) || self.sha256.all(a, self.sha256[a].matches('^[0-9a-f]{64}$'))",message="want sha256 as 64 lower case hexadecimal digits"
// +kubebuilder:validation:XValidation:rule="!has(self.sha512) || self.sha512.all(a, self.sha512[a].matches('^[0-9a-f]{128}$'))",message="want sha512 as 128 lower case hexadecimal digits"
// +kubebuilder:validation:XValidation:rule="(!has(self.sha256) || self.sha256.all(a, a == '*' || a.matches('^[a-z0-9]+$'))) && (!has(self.sha512) || self.sha512.all(a, a == '*' || a.matches('^[a-z0-9]+$')))",message="want digests by architecture as Go names it (amd64, arm64), or '*'"
// +kubebuilder:validation:XValidation:rule="!(has(self.insecure) && self.insecure) || ((!has(self.sha256) || size(self.sha256) == 0) && (!has(self.sha512) || size(self.sha512) == 0) && !has(self.signature) && !self.url.matches('^oci([+]http)?://[^ ]+@sha256:[0-9a-f]{64}(#[^ ]*)?$'))",message="want no insecure beside a digest or a signature: take one of them away"
// +kubebuilder:validation:XValidation:rule="!has(self.path) || size(self.path) == 0 || !(self.path.startsWith('/') || self.path.split('/').exists(p, p == '..'))",message="want a path inside the sandbox folder, without '..'"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || size(self.mode) == 0 || self.mode.matches('^0?[0-7]{3}$')",message="want an octal mode such as 0755"
type Artifact struct {
	// url is where it is fetched from: http, https, oci or file. {{os}} and {{arch}}
	// are the node's, as Go names them: linux, amd64.
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`

	// mirrors are asked in turn where url does not answer.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=2048
	// +optional
	Mirrors []string `json:"mirrors,omitempty"`

	// sha256 is the digest of what the URL answers, by architecture; "*" is for
	// all. No byte of anything else is run.
	// +kubebuilder:validation:MaxProperties=16
	// +optional
	SHA256 map[string]Digest `json:"sha256,omitempty"`

	// sha512 is the same with the longer digest.
	// +kubebuilder:validation:MaxProperties=16
	// +optional
	SHA512 map[string]Digest `json:"sha512,omitempty"`

	// signature says by whom it has to be signed.
	// +optional
	Signature *Signature `json:"signature,omitempty"`

	// insecure lets it run without digest and signature. The digest that was
	// found is kept, and a change of it is told.
	// +optional
	Insecure bool `json:"insecure,omitempty"`

	// format is raw, gz, xz, zst, bz2, tar, tar.gz, tar.xz, tar.zst, tar.bz2 or
	// zip. Default: what the URL's name and its first bytes say.
	// +optional
	Format Format `json:"format,omitempty"`

	// path is where it goes in the sandbox folder: the file's name, or the
	// folder that an archive is unpacked into. Default: the name in the URL,
	// or the sandbox folder itself.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`

	// mode is the file's mode. Default 0755 for a single file; files of an
	// archive keep theirs.
	// +kubebuilder:validation:MaxLength=4
	// +optional
	Mode string `json:"mode,omitempty"`

	// stripComponents is the number of leading folders that are dropped from
	// the names in an archive.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	// +optional
	StripComponents int `json:"stripComponents,omitempty"`

	// headersFile is the name of a file in the node's folder of headers
	// (docs/launch.md): what is sent to a server that wants to know who asks.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	HeadersFile string `json:"headersFile,omitempty"`
}

// Digest is a digest in lower case hexadecimal digits.
//
// +kubebuilder:validation:MaxLength=128
type Digest string

// Signature says by whom an artifact has to be signed.
type Signature struct {
	// key is the name of a key in the node's folder of keys: minisign's, or one
	// for sigstore.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`

	// url is where the signature is fetched from. Default: the artifact's URL
	// with .minisig or .sig added.
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	URL string `json:"url,omitempty"`
}

// Format is how an artifact is packed.
//
// +kubebuilder:validation:Enum=bz2;gz;raw;tar;tar.bz2;tar.gz;tar.xz;tar.zst;xz;zip;zst
type Format string

// EnvVar is one variable of the task's environment.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[A-Za-z_][A-Za-z0-9_]*$')",message="want a variable's name of letters, digits and '_'"
// +kubebuilder:validation:XValidation:rule="!self.name.matches('^(HOST|PORTS|PORT[0-9]+|PORT_.*|MESOS_.*|LISTEN_.*|NODEAGENT_.*)$')",message="want another name: nodeagent sets this variable"
type EnvVar struct {
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=32768
	// +optional
	Value string `json:"value,omitempty"`
}

// Port is one port of the host.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="want a port's name of at most 15 lower case letters, digits and '-'"
// +kubebuilder:validation:XValidation:rule="!(has(self.held) && self.held) || !has(self.protocol) || self.protocol == 'TCP'",message="want protocol TCP: only such a socket can be held"
type Port struct {
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`

	// port is its number; 0 is one from the node's range.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port"`

	// protocol is TCP (the default) or UDP.
	// +optional
	Protocol Protocol `json:"protocol,omitempty"`

	// held lets nodeagent open the listening socket and pass it to the task as
	// systemd does (LISTEN_FDS), so that an update refuses no connection. The
	// program has to know it: node_exporter's --web.systemd-socket.
	// +optional
	Held bool `json:"held,omitempty"`
}

// Protocol is TCP or UDP.
//
// +kubebuilder:validation:Enum=TCP;UDP
type Protocol string

// The protocols.
const (
	ProtocolTCP Protocol = "TCP"
	ProtocolUDP Protocol = "UDP"
)

// Resources are the most that a task may use.
type Resources struct {
	// cpu is in cores: 250m is a quarter of one. Default 1.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (!isQuantity(self) || quantity(self).isGreaterThan(quantity('0')))",message="want more than 0"
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`

	// memory, swap included; more than that and the task is killed whole.
	// Default 128Mi.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (!isQuantity(self) || quantity(self).isGreaterThan(quantity('0')))",message="want more than 0"
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`

	// pids is how many processes and threads it may have. Default 256.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4194304
	// +optional
	Pids *int64 `json:"pids,omitempty"`

	// disk is how much its sandbox folder may hold. Default 256Mi.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (!isQuantity(self) || quantity(self).isGreaterThan(quantity('0')))",message="want more than 0"
	// +optional
	Disk *resource.Quantity `json:"disk,omitempty"`

	// cpuset are the cores on which it runs: 0-3,6.
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$')",message="want cores such as 0-3,6"
	// +kubebuilder:validation:MaxLength=256
	// +optional
	CPUSet string `json:"cpuset,omitempty"`

	// io is how fast it may read and write devices.
	// +kubebuilder:validation:MaxItems=8
	// +optional
	IO []IOLimit `json:"io,omitempty"`
}

// IOLimit is how fast a task may read and write one device. What is left out
// has no limit. On cgroup version 1 only what goes past the page cache is held
// back.
//
// +kubebuilder:validation:XValidation:rule="self.device.matches('^([0-9]+:[0-9]+|/dev/[A-Za-z0-9_./-]+)$')",message="want a device such as /dev/sda, or its numbers as 8:0"
type IOLimit struct {
	// device is a whole disk: /dev/sda, or its numbers as 8:0.
	// +kubebuilder:validation:MaxLength=256
	Device string `json:"device"`

	// readBytesPerSecond is how many bytes it may read in a second.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (!isQuantity(self) || quantity(self).isGreaterThan(quantity('0')))",message="want more than 0"
	// +optional
	ReadBytesPerSecond *resource.Quantity `json:"readBytesPerSecond,omitempty"`

	// writeBytesPerSecond is how many it may write.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (!isQuantity(self) || quantity(self).isGreaterThan(quantity('0')))",message="want more than 0"
	// +optional
	WriteBytesPerSecond *resource.Quantity `json:"writeBytesPerSecond,omitempty"`

	// readOperationsPerSecond is how many times it may read in a second.
	// +kubebuilder:validation:Minimum=1
	// +optional
	ReadOperationsPerSecond *int64 `json:"readOperationsPerSecond,omitempty"`

	// writeOperationsPerSecond is how many times it may write.
	// +kubebuilder:validation:Minimum=1
	// +optional
	WriteOperationsPerSecond *int64 `json:"writeOperationsPerSecond,omitempty"`
}

// Rlimit is one limit of setrlimit(2).
//
// +kubebuilder:validation:XValidation:rule="!has(self.hard) || self.soft <= self.hard",message="want a soft limit that is not above the hard one"
type Rlimit struct {
	// name is what setrlimit(2) calls RLIMIT_NAME, in lower case: nofile, core,
	// memlock, …
	// +kubebuilder:validation:Enum=as;core;cpu;data;fsize;locks;memlock;msgqueue;nice;nofile;nproc;rss;rtprio;rttime;sigpending;stack
	Name string `json:"name"`

	// soft is what holds, in the limit's own unit: bytes, seconds, or a count.
	// +kubebuilder:validation:Minimum=0
	Soft int64 `json:"soft"`

	// hard is how far the task may raise it. Default: soft.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Hard *int64 `json:"hard,omitempty"`
}

// Network is which network a task has.
//
// +kubebuilder:validation:Enum=host;none
type Network string

// The networks.
const (
	NetworkHost Network = "host"
	NetworkNone Network = "none"
)

// Profile is how far a task is shut in.
//
// +kubebuilder:validation:Enum=host-observer;isolated;privileged
type Profile string

// The profiles.
const (
	ProfileIsolated     Profile = "isolated"
	ProfileHostObserver Profile = "host-observer"
	ProfilePrivileged   Profile = "privileged"
)

// Enforcement is what becomes of a launch of which not all can be enforced.
//
// +kubebuilder:validation:Enum=BestEffort;Strict
type Enforcement string

// The two ways.
const (
	EnforcementStrict     Enforcement = "Strict"
	EnforcementBestEffort Enforcement = "BestEffort"
)

// RestartPolicy is what becomes of a task that ended.
//
// +kubebuilder:validation:Enum=Always;Never;OnFailure
type RestartPolicy string

// The policies.
const (
	RestartAlways    RestartPolicy = "Always"
	RestartOnFailure RestartPolicy = "OnFailure"
	RestartNever     RestartPolicy = "Never"
)

// HealthCheck is Marathon's: failures within gracePeriod do not count until
// the first success; after maxConsecutiveFailures the task is ended and
// started again.
//
// +kubebuilder:validation:XValidation:rule="(has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.exec) ? 1 : 0) == 1",message="want exactly one of http, tcp and exec"
// +kubebuilder:validation:XValidation:rule="(!has(self.interval) || duration(self.interval) >= duration('100ms')) && (!has(self.timeout) || duration(self.timeout) >= duration('100ms'))",message="want an interval and a timeout of at least 100ms"
type HealthCheck struct {
	Probe `json:",inline"`

	// delay is the time from the start until the first probe. Default 0s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Delay *metav1.Duration `json:"delay,omitempty"`

	// gracePeriod is the time from the start in which failures do not count,
	// until the first success. Default 5m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	GracePeriod *metav1.Duration `json:"gracePeriod,omitempty"`

	// interval is the time between two probes. Until the first success they
	// come faster, so that a start is seen at once. Default 60s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// timeout of one probe. Default 20s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// maxConsecutiveFailures is after how many failures in a row the task is
	// ended and started again; with 0 it never is. Default 3.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +optional
	MaxConsecutiveFailures *int32 `json:"maxConsecutiveFailures,omitempty"`
}

// ReadinessCheck is asked until it passes once; after that no more.
//
// +kubebuilder:validation:XValidation:rule="(has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.exec) ? 1 : 0) == 1",message="want exactly one of http, tcp and exec"
// +kubebuilder:validation:XValidation:rule="(!has(self.interval) || duration(self.interval) >= duration('100ms')) && (!has(self.timeout) || duration(self.timeout) >= duration('100ms'))",message="want an interval and a timeout of at least 100ms"
type ReadinessCheck struct {
	Probe `json:",inline"`

	// interval is the longest time between two probes. Default 30s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// timeout of one probe. Default 10s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// Probe is what is asked: exactly one of the three.
type Probe struct {
	// http asks by GET; 200 to 399 is a success (for readiness 200 to 299).
	// +optional
	HTTP *HTTPProbe `json:"http,omitempty"`
	// tcp opens a connection and closes it.
	// +optional
	TCP *TCPProbe `json:"tcp,omitempty"`
	// exec runs a command, shut in as the task is; exit code 0 is a success.
	// +optional
	Exec *ExecProbe `json:"exec,omitempty"`
}

// HTTPProbe asks a port by HTTP.
type HTTPProbe struct {
	// port is the name of one of the ports. Default: the first.
	// +kubebuilder:validation:MaxLength=15
	// +optional
	Port string `json:"port,omitempty"`
	// path of the request. Default /.
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	Path string `json:"path,omitempty"`
	// scheme is HTTP (the default) or HTTPS, whose certificate is not verified.
	// +kubebuilder:validation:Enum=HTTP;HTTPS
	// +optional
	Scheme string `json:"scheme,omitempty"`
}

// TCPProbe opens a connection.
type TCPProbe struct {
	// port is the name of one of the ports. Default: the first.
	// +kubebuilder:validation:MaxLength=15
	// +optional
	Port string `json:"port,omitempty"`
}

// ExecProbe runs a command.
type ExecProbe struct {
	// command with its arguments, relative to the sandbox folder.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Command []string `json:"command"`
}

// Update says how a change of a Binary reaches the nodes.
type Update struct {
	// maxUnavailable is on how many nodes at a time the task may be exchanged
	// or not be up: a number, or a percentage of the nodes that run it, rounded
	// up. Default 1.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : self.matches('^([1-9][0-9]?|100)%$')",message="want a number of nodes above 0, or a percentage such as 10%"
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// deadline is how long a new task may take until it is up, its backoff
	// included. After that it is taken away and the old one stays. Default 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// BinaryStatus sums up what the nodes report; the agent that leads writes it.
type BinaryStatus struct {
	// observedGeneration is the metadata.generation this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// nodes is on how many nodes it is to run.
	// +kubebuilder:default=0
	// +optional
	Nodes int32 `json:"nodes"`
	// up is on how many of them it does.
	// +kubebuilder:default=0
	// +optional
	Up int32 `json:"up"`
	// updated is on how many of them it runs by this generation of the spec.
	// +kubebuilder:default=0
	// +optional
	Updated int32 `json:"updated"`
	// admitted are the nodes that may exchange their task now.
	// +kubebuilder:validation:MaxItems=5000
	// +listType=set
	// +optional
	Admitted []string `json:"admitted,omitempty"`
	// message says in a sentence how it stands.
	// +optional
	Message string `json:"message,omitempty"`
}
