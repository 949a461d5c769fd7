package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Config is nodeagent's configuration file. Every field has a default that
// suits a common node; an empty file is a valid one. docs/config.md is
// generated from the comments here and from SetDefaults.
type Config struct {
	metav1.TypeMeta `json:",inline"`

	// node is this node's name in Kubernetes. Default: $NODE_NAME, else the
	// host name.
	Node string `json:"node,omitempty"`

	// hostRoot is where the host's root folder is found: / on the host itself,
	// /host in the DaemonSet. Default: /.
	HostRoot string `json:"hostRoot,omitempty"`

	// listen is the address of /metrics, /healthz and /readyz. Default: :9456.
	Listen string `json:"listen,omitempty"`

	Containerd ContainerdConfig `json:"containerd,omitempty"`
	Disk       DiskConfig       `json:"disk,omitempty"`
	Restart    RestartConfig    `json:"restart,omitempty"`
}

// ContainerdConfig says where containers are told from.
type ContainerdConfig struct {
	// socket is containerd's socket as this process sees it. Default:
	// /run/containerd/containerd.sock.
	Socket string `json:"socket,omitempty"`

	// namespaces are the containerd namespaces that are watched. Default: k8s.io.
	Namespaces []string `json:"namespaces,omitempty"`
}

// DiskConfig says when a container that writes is an offender.
type DiskConfig struct {
	// reserve is what has to stay free on a file system, as a percentage of its
	// size (15%) or as a quantity (20Gi). Default: 15%, the kubelet's own
	// imagefs.available.
	Reserve string `json:"reserve,omitempty"`

	// horizon is how far ahead a full disk is an offence. Default: 30m.
	Horizon metav1.Duration `json:"horizon,omitempty"`

	// minimum is how much a container must have written before a restart of it
	// would give anything back. Default: 64Mi.
	Minimum string `json:"minimum,omitempty"`

	// cpu is the share of one core that measuring may take on average; layers
	// with very many files are then measured less often. Default: 2%.
	CPU string `json:"cpu,omitempty"`
}

// RestartMode says what becomes of an offence.
type RestartMode string

// The modes.
const (
	ModeAct     RestartMode = "act"     // the workload is restarted
	ModeObserve RestartMode = "observe" // it is told what would have been done
)

// RestartConfig says how a workload is restarted.
type RestartConfig struct {
	// mode is act or observe. Default: act.
	Mode RestartMode `json:"mode,omitempty"`

	// cooldown is how long after a restart the same workload is left alone.
	// Default: 1h.
	Cooldown metav1.Duration `json:"cooldown,omitempty"`

	// deadline is how long a restart may take before it is told as stalled.
	// Default: 10m.
	Deadline metav1.Duration `json:"deadline,omitempty"`

	// excludeNamespaces are Kubernetes namespaces in which nothing is ever
	// restarted. Default: kube-system, kube-public, kube-node-lease.
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty"`
}
