package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Paths inside a node. They are the standard ones; only programs come from
// /opt/lab, where the cache's folders are bound.
const (
	containerdSocket = "/run/containerd/containerd.sock"
	nodePrograms     = "/opt/lab"
	nodePath         = nodePrograms + "/kubernetes:" + nodePrograms + "/containerd:" + nodePrograms + "/runc:" +
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	pauseImage = "nodeagent-lab/pause:v1"
)

// child is a program that a node's init runs.
type child struct {
	Name  string
	Args  []string
	Ready string // unix:PATH or a URL that answers 200 when it is up
}

func nodeChildren(n int) []child {
	return []child{
		{
			Name:  "containerd",
			Args:  []string{nodePrograms + "/containerd/containerd", "--config", "/etc/containerd/config.toml"},
			Ready: "unix:" + containerdSocket,
		},
		{
			Name: "kubelet",
			Args: []string{nodePrograms + "/kubernetes/kubelet",
				"--config=/etc/kubernetes/kubelet.json", "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
				"--hostname-override=" + nodeName(n), "--node-ip=" + nodeIP(n)},
			Ready: "http://127.0.0.1:10248/healthz",
		},
		{
			Name:  "kube-proxy",
			Args:  []string{nodePrograms + "/kubernetes/kube-proxy", "--config=/etc/kubernetes/kube-proxy.json"},
			Ready: "http://127.0.0.1:10256/healthz",
		},
	}
}

// nodeFiles renders a node's configuration: path in the node → text.
func nodeFiles(p paths, n int, mayLowerOOM bool) (map[string][]byte, error) {
	files := map[string][]byte{
		"/etc/hostname":                   []byte(nodeName(n) + "\n"),
		"/etc/hosts":                      fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n", nodeIP(n), nodeName(n)),
		"/etc/machine-id":                 fmt.Appendf(nil, "6e6f64656167656e746c6162%08x\n", n),
		"/etc/containerd/config.toml":     []byte(containerdConfig(mayLowerOOM)),
		"/etc/cni/net.d/10-lab.conflist":  cniConfig(n),
		"/etc/kubernetes/kubelet.json":    kubeletConfig(n, mayLowerOOM),
		"/etc/kubernetes/kube-proxy.json": kubeProxyConfig(n, mayLowerOOM),
	}
	for to, from := range map[string]string{
		"/etc/kubernetes/kubelet.kubeconfig":    p.kubeconfig(nodeName(n)),
		"/etc/kubernetes/kube-proxy.kubeconfig": p.kubeconfig("kube-proxy"),
		"/etc/kubernetes/pki/ca.crt":            p.pki("ca.crt"),
		"/etc/kubernetes/pki/kubelet.crt":       p.pki(nodeName(n) + ".crt"),
		"/etc/kubernetes/pki/kubelet.key":       p.pki(nodeName(n) + ".key"),
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("cannot prepare %s: %w", nodeName(n), err)
		}
		files[to] = text
	}
	return files, nil
}

// mayLowerOOMScore tells whether this process has CAP_SYS_RESOURCE. Without it
// nothing may lower an oom_score_adj, and a pod for which containerd tries
// fails.
func mayLowerOOMScore() (bool, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("cannot read this process's capabilities: %w", err)
	}
	const capSysResource = 24
	for line := range strings.Lines(string(text)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return caps>>capSysResource&1 == 1, err
		}
	}
	return false, fmt.Errorf("cannot read this process's capabilities: no CapEff in /proc/self/status")
}

func containerdConfig(mayLowerOOM bool) string {
	return fmt.Sprintf(`version = 4
root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
  address = '%s'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'docker.io/%s'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = %t

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '%s/runc/runc'
    SystemdCgroup = false

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/opt/cni/bin']
  conf_dir = '/etc/cni/net.d'

# A node's plug is pulled by ending its processes; the machine's page cache
# survives that, so nothing is lost without fsync, and much time is gained.
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = true
`, containerdSocket, pauseImage, !mayLowerOOM, nodePrograms)
}

type object = map[string]any

func kubeletConfig(n int, mayLowerOOM bool) []byte {
	config := object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              "/etc/kubernetes/pki/kubelet.crt",
		"tlsPrivateKeyFile":        "/etc/kubernetes/pki/kubelet.key",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               cgroupRoot(n),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"resolvConf":               "",
		"staticPodPath":            "/etc/kubernetes/manifests",
		"volumePluginDir":          "/var/lib/kubelet/volumeplugins",
		"maxPods":                  250,
		"serializeImagePulls":      false,
		// The disk is the node's own, so these are the kubelet's defaults.
		"evictionHard": object{
			"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%",
			"imagefs.available": "15%", "imagefs.inodesFree": "5%",
		},
		// Nothing can be pulled again: 100 turns the image garbage collection
		// by disk usage off.
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}
	if !mayLowerOOM {
		config["oomScoreAdj"] = 0
	}
	return mustJSON(config)
}

func kubeProxyConfig(n int, mayLowerOOM bool) []byte {
	config := object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "nftables",
		"hostnameOverride": nodeName(n),
		"clientConnection": object{"kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig"},
		// Who is no pod (the host, another machine) is masqueraded, so that
		// the answer comes back through the node that translated.
		"clusterCIDR":     podNetwork,
		"detectLocalMode": "ClusterCIDR",
		// The limits of the connection table are the machine's: left alone.
		"conntrack": object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	}
	if !mayLowerOOM {
		config["oomScoreAdj"] = 0
	}
	return mustJSON(config)
}

// cniConfig joins a node's pods by a bridge. Nothing is masqueraded: the
// nodes and the host know the way to each pod. The leases lie on /run, as pods
// do not survive their node's restart.
func cniConfig(n int) []byte {
	return mustJSON(object{
		"cniVersion": "1.0.0", "name": "lab",
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
				"ipMasq": false, "hairpinMode": true,
				"ipam": object{
					"type": "host-local", "dataDir": "/run/cni-ipam",
					"ranges": [][]object{{{"subnet": podSubnet(n)}}},
				},
			},
			{"type": "portmap", "snat": true, "capabilities": object{"portMappings": true}},
		},
	})
}
