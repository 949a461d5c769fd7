package runtime

import (
	"slices"
	"time"
)

// Container is one container of this node, as containerd describes it. It is
// a value: it is never changed after it was made, and a newer look at the same
// container is another value.
type Container struct {
	ID        string // containerd's id, unique within Namespace
	Namespace string // the containerd namespace: k8s.io, default, moby
	Name      string // the container's name in its pod; empty outside Kubernetes
	Pod       Pod    // zero outside Kubernetes
	Sandbox   bool   // the pod's pause container: it carries the pod, it runs nothing
	Image     string
	Layer     Layer
	Mounts    []Mount // what is bound into it from the host
	Logs      string  // the folder on the host that the kubelet keeps its logs in; empty where there is none
	Cgroup    string  // as the OCI spec has it: a path, or slice:prefix:name under systemd
	PID       int     // of its first process; 0 while no task runs, or its shim never answered
	Created   time.Time
}

// Equal tells whether two looks at a container saw the same.
func (c Container) Equal(other Container) bool {
	return c.ID == other.ID && c.Namespace == other.Namespace &&
		c.Name == other.Name && c.Pod == other.Pod && c.Sandbox == other.Sandbox &&
		c.Image == other.Image && c.Layer == other.Layer && c.Logs == other.Logs &&
		c.Cgroup == other.Cgroup && c.PID == other.PID &&
		c.Created.Equal(other.Created) && slices.Equal(c.Mounts, other.Mounts)
}

// Pod names the pod a container belongs to. The name alone does not: a
// StatefulSet's next pod has its predecessor's.
type Pod struct {
	Namespace string
	Name      string
	UID       string
}

// Layer is where a container's own writes go.
type Layer struct {
	Snapshotter string // overlayfs, native, btrfs, devmapper, …
	Key         string
	// Upper is the folder on the host that holds what the container wrote,
	// and nothing of its image: overlay's upperdir. Empty where the snapshotter
	// keeps no such folder (native copies the image into the same one; btrfs,
	// zfs, devmapper and blockfile have a subvolume or a device); then only the
	// snapshotter can tell how much it is. Empty too when the snapshot is gone.
	Upper string
	// Source is, where Upper is empty, the folder or file of the host that the
	// snapshotter keeps the layer in, with what is the image's: native's
	// folder, blockfile's image. Empty for a device, or when not known.
	Source string
}

// Mount is a folder or file of the host that is bound into a container.
type Mount struct {
	Destination string // in the container
	Source      string // on the host
}
