package main

import "fmt"

// Addresses of the lab. The host (the machine's own network namespace) has
// hostIP on the bridge; the control plane listens there and nowhere else, so
// that nothing of the lab is reachable from outside the machine.
const (
	bridgeName          = "nalab0"
	hostIP              = "172.30.0.1"
	nodeNetwork         = "172.30.0.0/24"
	podNetwork          = "10.244.0.0/16"
	serviceNetwork      = "10.96.0.0/16"
	kubernetesServiceIP = "10.96.0.1"
	apiserverURL        = "https://" + hostIP + ":6443"

	// maxNodes bounds the numbers of nodes; addresses would allow more.
	maxNodes = 9
)

func nodeIP(n int) string     { return fmt.Sprintf("172.30.0.%d", 10+n) }
func podSubnet(n int) string  { return fmt.Sprintf("10.244.%d.0/24", n) }
func nodeMAC(n int) string    { return fmt.Sprintf("02:6e:61:00:01:%02x", n) }
func vethName(n int) string   { return fmt.Sprintf("nalab-%d", n) }
func cgroupRoot(n int) string { return "/" + cgroupName + "/" + nodeName(n) }
