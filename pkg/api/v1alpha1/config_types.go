package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Config is nodeagent's configuration file. Every field has a default that
// suits a common node; an empty file is a valid one. docs/config.md is
// generated from the comments here and the values of DefaultConfig.
type Config struct {
	metav1.TypeMeta `json:",inline"`

	// node is this node's name in Kubernetes. When it is not set: $NODE_NAME,
	// else the host name in lower case.
	Node string `json:"node,omitempty"`

	// hostRoot is where the host's root folder is found: / on the host itself,
	// /host in the DaemonSet.
	HostRoot string `json:"hostRoot,omitempty"`

	// listen is the address of /metrics, /healthz and /readyz.
	Listen string `json:"listen,omitempty"`

	// socket is the agent's local socket, which only root may open: nodeagent
	// top asks there. Default: /run/nodeagent/agent.sock.
	Socket string `json:"socket,omitempty"`

	// containerd says where containers are told from.
	Containerd ContainerdConfig `json:"containerd,omitempty"`

	// disk says when a container that writes is an offender.
	Disk DiskConfig `json:"disk,omitempty"`

	// restart says how a workload is restarted.
	Restart RestartConfig `json:"restart,omitempty"`

	// launch says whether and how binaries are run from URLs.
	Launch LaunchConfig `json:"launch,omitempty"`

	// notify says who is told of restarts, besides the Events.
	Notify NotifyConfig `json:"notify,omitempty"`
}

// ContainerdConfig says where containers are told from.
type ContainerdConfig struct {
	// socket is containerd's socket as this process sees it.
	Socket string `json:"socket,omitempty"`

	// namespaces are the containerd namespaces that are watched.
	Namespaces []string `json:"namespaces,omitempty"`
}

// DiskConfig says when a container that writes is an offender.
type DiskConfig struct {
	// reserve is what has to stay free on a file system, as a percentage of its
	// size (15%) or as a quantity (20Gi). The default, kubelet, is what this
	// node's kubelet evicts at (nodefs.available and imagefs.available, hard or
	// soft, whichever comes first; where layers have a file system of their own,
	// each on its own), or 15% where that cannot be read. It is of bytes alone:
	// what has to stay free of inodes is what this node's kubelet evicts at
	// (nodefs.inodesFree and imagefs.inodesFree), or 5% where that cannot be read.
	Reserve string `json:"reserve,omitempty"`

	// horizon is how far ahead a full disk is an offence; 1m to 168h.
	Horizon metav1.Duration `json:"horizon,omitempty"`

	// minimum is how much a container must have written before a restart of it
	// would give anything back.
	Minimum string `json:"minimum,omitempty"`

	// cpu is the share of one core that measuring folders may take on average;
	// layers with very many files are then measured less often. Looking for
	// deleted files that are open, and the first reading and the full checks of
	// layers whose events are followed, bound themselves apart from it. 0.1% to
	// 100%.
	CPU string `json:"cpu,omitempty"`

	// method is how layers are measured that are folders: auto (by file events
	// where the kernel tells of them, by walking elsewhere) or walk. nodeagent
	// check tells what auto chooses and why.
	Method DiskMethod `json:"method,omitempty"`
}

// DiskMethod says how layers are measured.
type DiskMethod string

// The methods.
const (
	MethodAuto DiskMethod = "auto"
	MethodWalk DiskMethod = "walk"
)

// RestartMode says what becomes of a Restart.
type RestartMode string

// The modes.
const (
	ModeAct     RestartMode = "act"     // the workload is restarted
	ModeApprove RestartMode = "approve" // a person has to approve it
	ModeObserve RestartMode = "observe" // it is told what would have been done
	ModeNever   RestartMode = "never"   // it is refused; by annotation alone
)

// RestartConfig says how a workload is restarted.
type RestartConfig struct {
	// mode is act (the workload is restarted), approve (a person has to approve
	// each restart) or observe (the Restart tells what would have been done).
	// The annotation nodeagent.dev/restart of a namespace, and before that of a
	// workload, says otherwise: act, approve, observe or never.
	Mode RestartMode `json:"mode,omitempty"`

	// onStall is what is done when a restart stalls while old pods still serve:
	// leave (nothing) or rollback (the pod template is written as it was before,
	// so the old pods stay and the new ones go). The annotation
	// nodeagent.dev/on-stall of a namespace, and before that of a workload, says
	// otherwise, and before both a person's own Restart.
	OnStall OnStall `json:"onStall,omitempty"`

	// cooldown is how long after a restart the same workload is left alone.
	// At least 1s.
	Cooldown metav1.Duration `json:"cooldown,omitempty"`

	// deadline is how long a restart may take before it is told as Stalled,
	// and how long rolling it back may take. At least 10s.
	Deadline metav1.Duration `json:"deadline,omitempty"`

	// excludeNamespaces are Kubernetes namespaces in which nothing is ever
	// restarted. A list of your own takes the place of the default one.
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty"`

	// approvalTimeout is how long a Restart waits for a person's approval before
	// it ends as Refused. 1m to 168h.
	ApprovalTimeout metav1.Duration `json:"approvalTimeout,omitempty"`

	// limits bounds how much is restarted at once in the whole cluster. Give all
	// agents the same.
	Limits RestartLimits `json:"limits,omitempty"`

	// windows are when automatic restarts may begin, each with a start (cron's
	// five fields), a duration and a timeZone (UTC by default). None: at any
	// time.
	Windows []RestartWindow `json:"windows,omitempty"`

	// urgent is how soon a disk has to be full for a restart outside all windows.
	// 0s: the windows hold whatever happens.
	Urgent metav1.Duration `json:"urgent,omitempty"`

	// taintFillingNode gives this node the taint
	// nodeagent.dev/disk-filling:PreferNoSchedule while its disk fills, so that
	// new pods, and those that take the place of what fills it, go elsewhere
	// where they fit. Not with mode observe.
	TaintFillingNode bool `json:"taintFillingNode"`
}

// RestartLimits bounds how much is restarted at once.
type RestartLimits struct {
	// cluster is how many restarts run at once in the whole cluster. At least 1.
	Cluster int `json:"cluster,omitempty"`

	// namespace is how many restarts run at once in one namespace. At least 1.
	Namespace int `json:"namespace,omitempty"`

	// hourly is how many automatic restarts begin within an hour in the whole
	// cluster. At least 1.
	Hourly int `json:"hourly,omitempty"`
}

// RestartWindow is a time at which automatic restarts may begin.
type RestartWindow struct {
	// start is when it opens, as a cron line of five fields: 0 22 * * 1-5.
	Start string `json:"start,omitempty"`

	// duration is for how long it is open. 1m to 168h.
	Duration metav1.Duration `json:"duration,omitempty"`

	// timeZone is a name of the IANA time zone database, such as Europe/Berlin.
	TimeZone string `json:"timeZone,omitempty"`
}

// LaunchConfig says whether and how binaries are run from URLs.
type LaunchConfig struct {
	// enabled turns it on. Without it Binaries are not looked at and the agent
	// touches no process.
	Enabled bool `json:"enabled"`

	// folder is where files with Binaries are looked for. Beside it are keys/
	// (public keys by which artifacts may be signed), headers/ (what is sent to
	// servers that want to know who asks) and ca.pem (whom to trust besides the
	// system's own).
	Folder string `json:"folder,omitempty"`

	// root is where fetched programs, sandboxes and what has to be known again
	// are kept. It has to be on a disk that outlives the agent.
	Root string `json:"root,omitempty"`

	// state is a folder in memory, which a reboot empties: what runs stands
	// there.
	State string `json:"state,omitempty"`

	// cgroup is the one below which every launched task gets its own, without
	// the controller's folder. Two agents on one machine must not share it.
	// Default: nodeagent; in a pod of a kubelet whose cgroupRoot is not the
	// node's, nodeagent in that. No name of a systemd unit, such as
	// nodeagent.slice.
	Cgroup string `json:"cgroup,omitempty"`

	// ports is the range that ports without a number are taken from.
	Ports string `json:"ports,omitempty"`

	// storeBytes is how much of the disk fetched programs may fill. What runs
	// is never thrown away.
	StoreBytes string `json:"storeBytes,omitempty"`

	// allowPrivileged lets Binaries use the profile privileged on this node.
	AllowPrivileged bool `json:"allowPrivileged"`

	// allowPrivateRedirects lets servers redirect to private and loopback
	// addresses that no Binary names: to an object store in the same network.
	AllowPrivateRedirects bool `json:"allowPrivateRedirects"`

	// taintPublicNode gives this node the taint
	// nodeagent.dev/role=public:NoSchedule while its label nodeagent.dev/role is
	// public, which keeps pods that do not tolerate it off.
	TaintPublicNode bool `json:"taintPublicNode"`
}
