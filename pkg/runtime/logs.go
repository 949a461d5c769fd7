package runtime

import (
	"encoding/json"
	"path/filepath"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
)

// The CRI plugin keeps what it knows of a container beside containerd's record
// (containerd, internal/cri/store/container/metadata.go): JSON with a version,
// "v1" since 1.0.
const (
	extensionMetadata = "io.cri-containerd.container.metadata"
	metadataVersion   = "v1"

	// podLogs is the kubelet's own default folder for logs
	// (k8s.io/kubernetes, pkg/kubelet/apis/config/v1beta1/defaults.go).
	podLogs = "/var/log/pods"
)

// criMetadata is the part of it that is read here.
type criMetadata struct {
	Version  string
	Metadata struct{ LogPath string }
}

// logFolder is the folder on the host that the kubelet keeps a container's
// logs in, those of its earlier attempts among them. It is asked of the CRI
// plugin, since a kubelet may be told another podLogsDir. When that cannot be
// read, or names no folder of this container alone, it is the kubelet's
// convention: NAMESPACE_POD_UID/CONTAINER (BuildPodLogsDirectory in
// pkg/kubelet/kuberuntime/helpers.go). Empty where there is none.
func logFolder(c Container, record *containersapi.Container) string {
	if c.Sandbox || c.Name == "" || c.Pod.Namespace == "" || c.Pod.Name == "" || c.Pod.UID == "" {
		return ""
	}
	pod := strings.Join([]string{c.Pod.Namespace, c.Pod.Name, c.Pod.UID}, "_")
	if strings.ContainsRune(pod+c.Name, '/') || c.Name == ".." {
		return "" // no names of Kubernetes
	}
	var m criMetadata
	if err := json.Unmarshal(record.GetExtensions()[extensionMetadata].GetValue(), &m); err == nil && m.Version == metadataVersion {
		folder := filepath.Dir(m.Metadata.LogPath)
		if filepath.IsAbs(folder) && filepath.Base(folder) == c.Name && strings.HasSuffix(filepath.Dir(folder), "_"+c.Pod.UID) {
			return folder
		}
	}
	return filepath.Join(podLogs, pod, c.Name)
}
