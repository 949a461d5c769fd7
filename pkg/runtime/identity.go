package runtime

import (
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
)

// The labels by which containerd's CRI plugin marks what it made, and those
// that the kubelet adds (k8s.io/kubernetes, pkg/kubelet/types/labels.go).
const (
	labelKind          = "io.cri-containerd.kind"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodName       = "io.kubernetes.pod.name"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"

	kindSandbox = "sandbox"

	// criNamespace is where the CRI plugin keeps everything; it is a constant
	// there too. An image may carry any label, and tools such as nerdctl copy
	// them onto the container: elsewhere such a label proves nothing.
	criNamespace = "k8s.io"

	// maxLabel is the longest name Kubernetes allows (a DNS subdomain). What
	// is longer names no pod.
	maxLabel = 253
)

// identify makes a Container of containerd's record alone: all but the upper
// folder and the pid, for which the snapshotter and the task have to be asked.
// With an error the Container is good but for its cgroup and its mounts.
func identify(namespace string, record *containersapi.Container) (Container, error) {
	c := Container{
		ID:        record.GetID(),
		Namespace: namespace,
		Image:     record.GetImage(),
		Layer:     Layer{Snapshotter: record.GetSnapshotter(), Key: record.GetSnapshotKey()},
	}
	if created := record.GetCreatedAt(); created.IsValid() {
		c.Created = created.AsTime()
	}
	if kind := record.GetLabels()[labelKind]; namespace == criNamespace && kind != "" {
		c.Sandbox = kind == kindSandbox
		c.Name = label(record, labelContainerName)
		c.Pod = Pod{
			Namespace: label(record, labelPodNamespace),
			Name:      label(record, labelPodName),
			UID:       label(record, labelPodUID),
		}
		c.Logs = logFolder(c, record)
	}
	spec, err := parseSpec(record.GetSpec())
	if err != nil {
		return c, err
	}
	c.Cgroup, c.Mounts = spec.cgroup(), spec.binds()
	return c, nil
}

func label(record *containersapi.Container, name string) string {
	value := record.GetLabels()[name]
	if len(value) > maxLabel {
		return ""
	}
	return value
}
