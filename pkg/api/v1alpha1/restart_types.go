package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Restart is the wish to replace a workload's pods, and what came of it. Its
// name is made of the workload's kind and name (deployment-checkout), so there
// is at most one per workload: the name is the lock. It stays after it ended,
// as the memory that the cooldown and the limits are counted from; the next
// restart of the same workload writes a new spec into the same object.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="self.metadata.name == self.spec.target.kind.lowerAscii() + '-' + self.spec.target.name || size(self.spec.target.kind) + size(self.spec.target.name) > 252",message="a Restart is named KIND-NAME of its target in lower case (deployment-checkout): its name is the lock"
// +kubebuilder:validation:XValidation:rule="self.spec == oldSelf.spec || !has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in ['Succeeded', 'Ineffective', 'Stalled', 'Failed', 'Refused', 'Observed']",message="this Restart is being carried out: its spec cannot be changed before it has ended"
// +kubebuilder:resource:path=restarts,scope=Namespaced,categories=nodeagent
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:selectablefield:JSONPath=`.status.holder`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Freed",type=string,JSONPath=`.status.freed`
// +kubebuilder:printcolumn:name="Asked",type=date,JSONPath=`.spec.requestedAt`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Scope",type=string,JSONPath=`.spec.scope`,priority=1
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.pod`,priority=1
// +kubebuilder:printcolumn:name="Holder",type=string,JSONPath=`.status.holder`,priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.spec.message`,priority=1
type Restart struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RestartSpec   `json:"spec"`
	Status RestartStatus `json:"status,omitempty"`
}

// RestartList is what the API server answers to a list of Restarts.
//
// +kubebuilder:object:root=true
type RestartList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Restart `json:"items"`
}

// RestartSpec says what is to be replaced, and why.
//
// +kubebuilder:validation:XValidation:rule="self.target == oldSelf.target",message="a Restart's target cannot be changed: its name is made of it"
// +kubebuilder:validation:XValidation:rule="self.scope != 'Pod' || has(self.pod)",message="scope Pod needs the pod's name in spec.pod"
type RestartSpec struct {
	// target is the workload, in the Restart's own namespace.
	Target TargetReference `json:"target"`

	// scope is Workload (all pods of the target) or Pod (the one that is named).
	// +kubebuilder:default=Workload
	// +optional
	Scope Scope `json:"scope,omitempty"`

	// pod is the pod that is to be replaced, or the one that gave the reason.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Pod string `json:"pod,omitempty"`

	// podUID tells that pod from a later one of the same name.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	PodUID string `json:"podUID,omitempty"`

	// node is the node whose agent asked for the restart and carries it out.
	// Empty when a person asked.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Node string `json:"node,omitempty"`

	// reason is why: DiskFill, ConfigChange or Manual.
	// +kubebuilder:default=Manual
	// +optional
	Reason Reason `json:"reason,omitempty"`

	// message says the reason in a sentence for a person.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`

	// allowDowntime lets the restart go on where a new pod cannot be healthy
	// before an old one goes. Without it such a restart is refused.
	// +optional
	AllowDowntime bool `json:"allowDowntime,omitempty"`

	// deadline is how long the restart may take from its start before it is
	// told as Stalled. Default 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`

	// onStall is what is done when the deadline is over while old pods still
	// serve: leave or rollback. Empty: what the annotation
	// nodeagent.dev/on-stall of the workload says, else that of its namespace,
	// else the agent's configuration. It is about the method Template: what is
	// half done pod by pod is undone in any case.
	// +optional
	OnStall OnStall `json:"onStall,omitempty"`

	// fullAt is when the disk will be full if nothing is done, as far as it is
	// known. One that will be full soon is not left to wait for a window.
	// +optional
	FullAt *metav1.Time `json:"fullAt,omitempty"`

	// requestedAt is when this restart was asked for. Writing a later time into
	// an ended Restart asks for the next one.
	// +optional
	RequestedAt metav1.MicroTime `json:"requestedAt,omitempty"`
}

// TargetReference names a workload in the same namespace.
type TargetReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	APIVersion string `json:"apiVersion"`
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9]*$`
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Scope says how much of the target is replaced.
//
// +kubebuilder:validation:Enum=Workload;Pod
type Scope string

// The scopes.
const (
	ScopeWorkload Scope = "Workload"
	ScopePod      Scope = "Pod"
)

// Method says how pods are replaced.
//
// +kubebuilder:validation:Enum=Template;Evict;Release;Copy
type Method string

// The methods. All but Template go pod by pod.
const (
	MethodTemplate Method = "Template" // the pod template is annotated; the workload's own controller rolls out
	MethodEvict    Method = "Evict"    // a pod is evicted, its controller makes another
	MethodRelease  Method = "Release"  // a pod is taken from its controller, which makes another; then it is drained and evicted
	MethodCopy     Method = "Copy"     // a copy of a pod without owner is made; then the old one is drained and evicted
)

// OnStall says what is done about a workload whose restart stalled.
//
// +kubebuilder:validation:Enum=leave;rollback
type OnStall string

// What can be done about a stall.
const (
	OnStallLeave    OnStall = "leave"    // nothing
	OnStallRollback OnStall = "rollback" // the pod template is written as it was before the restart
)

// Reason says what kind of cause a Restart has.
//
// +kubebuilder:validation:Enum=DiskFill;ConfigChange;Manual
type Reason string

// The reasons.
const (
	ReasonDiskFill     Reason = "DiskFill"
	ReasonConfigChange Reason = "ConfigChange"
	ReasonManual       Reason = "Manual"
)

// Phase is how far a Restart has come.
//
// +kubebuilder:validation:Enum=Approval;Pending;Running;Verifying;RollingBack;Succeeded;Ineffective;Stalled;Failed;Refused;Observed
type Phase string

// The phases. Succeeded, Ineffective, Stalled, Failed, Refused and Observed are
// ends.
const (
	PhaseApproval  Phase = "Approval"  // a person has to approve it; nothing was touched yet
	PhasePending   Phase = "Pending"   // taken up or not, waiting for its turn perhaps; nothing was touched yet
	PhaseRunning   Phase = "Running"   // the API was told, pods are being replaced
	PhaseVerifying Phase = "Verifying" // the rollout is complete; the old pods are on their way out
	PhaseSucceeded Phase = "Succeeded" // new pods Ready, old pods gone
	PhaseStalled   Phase = "Stalled"   // not complete at the deadline; nothing more is done
	PhaseFailed    Phase = "Failed"    // it can no longer be completed: the target is gone, say
	PhaseRefused   Phase = "Refused"   // it would not have been clean, or was not allowed; nothing was touched

	// PhaseRollingBack comes after the deadline, where rolling back was chosen:
	// the pod template gets back what stood there before. The end is Stalled.
	PhaseRollingBack Phase = "RollingBack"

	// PhaseIneffective is the end of one that succeeded and did not help: it
	// freed nothing, or it was one too many in a day. Until a person clears it
	// no further automatic restart of the workload is made.
	PhaseIneffective Phase = "Ineffective"
	// PhaseObserved is the end of one that says what would have been done.
	PhaseObserved Phase = "Observed"
)

// Ended tells whether nothing more will happen in this phase.
func (p Phase) Ended() bool {
	switch p {
	case PhaseSucceeded, PhaseIneffective, PhaseStalled, PhaseFailed, PhaseRefused, PhaseObserved:
		return true
	}
	return false
}

// RestartStatus is what came of it so far.
type RestartStatus struct {
	// observedGeneration is the metadata.generation this status speaks of. A
	// higher generation is a new restart that nobody has taken up.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// +optional
	Phase Phase `json:"phase,omitempty"`

	// holder is the node whose agent works on it.
	// +optional
	Holder string `json:"holder,omitempty"`

	// renewed is when the holder last said that it is alive.
	// +optional
	Renewed *metav1.MicroTime `json:"renewed,omitempty"`

	// queued is when it was taken up, if it had to wait for its turn, a window,
	// the end of a pause or an approval.
	// +optional
	Queued *metav1.Time `json:"queued,omitempty"`

	// started is when its turn came. The deadline is counted from here. It is
	// also the time that is written into the pod template, so a second holder
	// finds what the first did.
	// +optional
	Started *metav1.Time `json:"started,omitempty"`

	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`

	// targetUID tells the target from a later one of the same name.
	// +optional
	TargetUID string `json:"targetUID,omitempty"`

	// method is how the pods are replaced, settled when it began: a change of
	// the target's strategy in the middle does not change it.
	// +optional
	Method Method `json:"method,omitempty"`

	// capacity is how many of the target's pods were Ready when it began, those
	// that have to go counted as Ready. A restart pod by pod waits until as many
	// are Ready again before it takes the next. Unused with method Template.
	// +optional
	Capacity int32 `json:"capacity,omitempty"`

	// template is what the target's pod template was when it began, so that a
	// change that is not this restart's own is recognised.
	// +optional
	Template *TemplateRecord `json:"template,omitempty"`

	// pods is how many pods have to go.
	// +optional
	Pods int32 `json:"pods,omitempty"`

	// oldPods are the pods that were there when it began and have to go. Of
	// very many those of the holder's node come first, and 500 are named.
	// +kubebuilder:validation:MaxItems=500
	// +optional
	OldPods []PodReference `json:"oldPods,omitempty"`

	// replacedPods are the old pods that are gone.
	// +optional
	ReplacedPods []string `json:"replacedPods,omitempty"`

	// freedBytes is what the replaced pods' containers had written on the
	// holder's node and what went with them.
	// +optional
	FreedBytes int64 `json:"freedBytes,omitempty"`

	// freed is freedBytes for people: 4.1Gi.
	// +optional
	Freed string `json:"freed,omitempty"`

	// message says in a sentence how it stands.
	// +optional
	Message string `json:"message,omitempty"`

	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// history holds the last ten ended restarts of this workload, newest
	// first, and behind them the last one of each further node where a single
	// pod was replaced. A restart enters it in the same write that ends it.
	// +kubebuilder:validation:MaxItems=500
	// +optional
	History []RestartRecord `json:"history,omitempty"`

	// notified is what each receiver of the Config's notify was told last: the
	// memory by which nothing is told twice.
	// +optional
	Notified map[string]NotifiedRecord `json:"notified,omitempty"`
}

// NotifyStage is what people are told of one restart, one after the other.
//
// +kubebuilder:validation:Enum=Seen;Approval;Restarting;Done;Failed;Observed
type NotifyStage string

// The stages. Done, Failed and Observed are ends.
const (
	NotifySeen       NotifyStage = "Seen"       // asked for
	NotifyApproval   NotifyStage = "Approval"   // a person has to approve it
	NotifyRestarting NotifyStage = "Restarting" // taken up
	NotifyDone       NotifyStage = "Done"       // Succeeded
	NotifyFailed     NotifyStage = "Failed"     // Stalled, Failed, Refused or Ineffective: a person is needed
	NotifyObserved   NotifyStage = "Observed"   // it would have been done
)

// NotifiedRecord is what one receiver was told last.
type NotifiedRecord struct {
	// generation is the metadata.generation that the message spoke of.
	Generation int64       `json:"generation"`
	Stage      NotifyStage `json:"stage"`
	// thread is what the receiver calls the first message, to which the next
	// ones answer.
	// +optional
	Thread string `json:"thread,omitempty"`
	// +optional
	At *metav1.Time `json:"at,omitempty"`
}

// What a restart writes on pods.
const (
	// LabelRestart is a label on a pod that is taken from its controller, and
	// on a copy: the uid of the Restart that did it and finds it again by it.
	LabelRestart = "nodeagent.dev/restart-uid"
	// AnnotationLabelsTaken is an annotation on the old pod: the labels that
	// were taken off it, as JSON, so that they can be put back.
	AnnotationLabelsTaken = "nodeagent.dev/labels-taken"
	// AnnotationCopyOf is an annotation on a copy: the first pod's name.
	AnnotationCopyOf = "nodeagent.dev/copy-of"
	// AnnotationCopied is an annotation on a copy: when it was made. The
	// cooldown of a pod without owner is counted from it.
	AnnotationCopied = "nodeagent.dev/copied"
	// AnnotationRestart is an annotation that people write on a workload or a
	// namespace: act, approve, observe or never.
	AnnotationRestart = "nodeagent.dev/restart"
	// AnnotationOnStall is an annotation that people write on a workload or a
	// namespace: leave or rollback.
	AnnotationOnStall = "nodeagent.dev/on-stall"
	// AnnotationNotify is an annotation that people write on a workload or its
	// namespace: the receivers that are told of its restarts, or none.
	AnnotationNotify = "nodeagent.dev/notify"
	// AnnotationApproved is an annotation that a person writes on a Restart in
	// phase Approval. Its value is the Restart's metadata.generation, so that
	// what was approved once does not approve the next. The API server asks
	// that whoever writes it may `approve` restarts.
	AnnotationApproved = "nodeagent.dev/approved"
	// AnnotationPaused is an annotation on the Lease of the slots: while it is
	// there, no restart is begun in the whole cluster. Its value says why.
	AnnotationPaused = "nodeagent.dev/paused"
	// AnnotationSlots is an annotation on the same Lease: which restarts run,
	// and which were begun within the hour, as JSON.
	AnnotationSlots = "nodeagent.dev/slots"
)

// TaintDiskFilling is the key of the taint, with effect PreferNoSchedule, that an
// agent gives its own node while the node's disk fills.
const TaintDiskFilling = "nodeagent.dev/disk-filling"

// TemplateRecord remembers a pod template.
type TemplateRecord struct {
	// hash is of the whole template but its restartedAt annotation.
	Hash string `json:"hash"`
	// restartedAt is that annotation's value, empty if there was none.
	// +optional
	RestartedAt string `json:"restartedAt,omitempty"`
}

// The types of a Restart's conditions.
const (
	// ConditionReplaced is True once the new pods are Ready and the old ones
	// gone from the API; what is still waited for is their space on the disk.
	ConditionReplaced = "Replaced"
	// ConditionStalled is True once a restart that is rolled back has stalled;
	// its message keeps why, for the pods that told it go.
	ConditionStalled = "Stalled"
)

// PodReference is one pod, told apart from a later one of the same name.
type PodReference struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
	// +optional
	Node string `json:"node,omitempty"`
	// bytes is what its containers had written when it was last looked at;
	// known only for pods of the holder's node.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
}

// RestartRecord is one ended restart in the history.
type RestartRecord struct {
	Reason Reason `json:"reason,omitempty"`
	Phase  Phase  `json:"phase"`
	// +optional
	Scope Scope `json:"scope,omitempty"`
	// +optional
	Pod string `json:"pod,omitempty"`
	// +optional
	Node string `json:"node,omitempty"`
	// +optional
	Started *metav1.Time `json:"started,omitempty"`
	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`
	// +optional
	FreedBytes int64 `json:"freedBytes,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}
