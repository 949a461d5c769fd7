// Package apiserver gives tests a real control plane: etcd, kube-apiserver
// with RBAC, and kube-controller-manager, built by the lab. Its nodes are
// objects; what a scheduler and a kubelet would do on them does Kubelet,
// through the same API.
package apiserver
