package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BinaryInstance is what one node reports of one Binary. It is named
// BINARY.NODE and written by that node's agent alone. It goes when nothing of
// the Binary is left on the node, and with the Node, which owns it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=binaryinstances,scope=Cluster,categories=nodeagent
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:selectablefield:JSONPath=`.spec.binary`
// +kubebuilder:printcolumn:name="Binary",type=string,JSONPath=`.spec.binary`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Ports",type=string,JSONPath=`.status.endpoints`
// +kubebuilder:printcolumn:name="Restarts",type=integer,JSONPath=`.status.restarts`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.since`
// +kubebuilder:printcolumn:name="Pid",type=integer,JSONPath=`.status.pid`,priority=1
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.status.digest`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`,priority=1
type BinaryInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BinaryInstanceSpec   `json:"spec"`
	Status BinaryInstanceStatus `json:"status,omitempty"`
}

// BinaryInstanceList is what the API server answers to a list of them.
//
// +kubebuilder:object:root=true
type BinaryInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BinaryInstance `json:"items"`
}

// BinaryInstanceSpec says which Binary on which node.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="what an instance is of cannot be changed"
type BinaryInstanceSpec struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Binary string `json:"binary"`
	// uid is the Binary's: a later one of the same name is another.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
}

// State is where in its life a task stands; docs/launch/lifecycle.md has the
// table.
type State string

// The states.
const (
	StateWaiting    State = "Waiting"    // for a port, for its node's turn in an update
	StateFetching   State = "Fetching"   // its artifacts are fetched and unpacked
	StateStarting   State = "Starting"   // it runs and was not yet seen healthy and ready
	StateHealthy    State = "Healthy"    // it runs and is up
	StateUnhealthy  State = "Unhealthy"  // it runs and its health check fails
	StateStopping   State = "Stopping"   // TERM, grace, kill, until its cgroup is empty
	StateBackingOff State = "BackingOff" // it ended, or was not to be had, and is tried again after a pause
	StateFailed     State = "Failed"     // it cannot run as it is written; not tried again before the spec changes or the agent starts anew
	StateFinished   State = "Finished"   // it ended, and its restart policy wants no other
	StateGone       State = "Gone"       // nothing of it is left
)

// BinaryInstanceStatus is how it stands on the node.
type BinaryInstanceStatus struct {
	// +optional
	State State `json:"state,omitempty"`

	// since is when it came into this state.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// message says in a sentence why.
	// +optional
	Message string `json:"message,omitempty"`

	// observedGeneration is the Binary's generation that the node has seen.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// runningGeneration is the one that the task which is up was started by; 0
	// when none is up.
	// +optional
	RunningGeneration int64 `json:"runningGeneration,omitempty"`

	// rejectedGeneration is one whose new task did not become healthy: it was
	// taken away, and the old one stays.
	// +optional
	RejectedGeneration int64 `json:"rejectedGeneration,omitempty"`

	// +optional
	Pid int64 `json:"pid,omitempty"`

	// started is when the task was started.
	// +optional
	Started *metav1.Time `json:"started,omitempty"`

	// digest is what runs: of all that was fetched.
	// +optional
	Digest string `json:"digest,omitempty"`

	// verified says how each artifact was found to be the right one: sha256,
	// sha512, signed by KEY, digest in the URL, or insecure with the sha256 that
	// was found and the one that it was before.
	// +optional
	Verified []string `json:"verified,omitempty"`

	// ports are those the task has.
	// +listType=map
	// +listMapKey=name
	// +optional
	Ports []PortStatus `json:"ports,omitempty"`

	// endpoints are the ports for people: metrics=9100.
	// +optional
	Endpoints string `json:"endpoints,omitempty"`

	// restarts counts how often the task was started again after it ended.
	// +kubebuilder:default=0
	// +optional
	Restarts int32 `json:"restarts"`

	// lastExit is how it ended the last time.
	// +optional
	LastExit *ExitStatus `json:"lastExit,omitempty"`

	// phases is how long each part of the launch took.
	// +optional
	Phases map[string]metav1.Duration `json:"phases,omitempty"`

	// enforced and notEnforced are what shuts the task in, and what could not.
	// +optional
	Enforced []string `json:"enforced,omitempty"`
	// +optional
	NotEnforced []string `json:"notEnforced,omitempty"`

	// next is the new task beside this one while a change is on its way.
	// +optional
	Next *NextStatus `json:"next,omitempty"`
}

// PortStatus is one port of a task.
type PortStatus struct {
	Name string `json:"name"`
	Port int32  `json:"port"`
	// +optional
	Protocol Protocol `json:"protocol,omitempty"`
}

// ExitStatus is how a task ended.
type ExitStatus struct {
	// code is the exit code; -1 where a signal ended it.
	Code int32 `json:"code"`
	// +optional
	Signal string `json:"signal,omitempty"`
	// +optional
	OOMKilled bool        `json:"oomKilled,omitempty"`
	At        metav1.Time `json:"at"`
	// +optional
	Message string `json:"message,omitempty"`
}

// NextStatus is how the new task stands.
type NextStatus struct {
	State State `json:"state"`
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	Pid int64 `json:"pid,omitempty"`
}

// LabelBinary is a label on a BinaryInstance: its Binary's name.
const LabelBinary = "nodeagent.dev/binary"

// LabelRole is the label of a node that Binary.spec.roles ask for.
const LabelRole = "nodeagent.dev/role"

// RolePublic is the role of nodes that ordinary pods are kept off, by a taint of
// the same key and value as the label's.
const RolePublic = "public"

// RolePrivate is the role of a node without the label.
const RolePrivate = "private"
