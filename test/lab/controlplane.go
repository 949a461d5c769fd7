package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The control plane's processes, in the order of their start.
const (
	etcdName              = "etcd"
	apiserverName         = "kube-apiserver"
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
)

func controlPlaneNames() []string {
	return []string{etcdName, apiserverName, controllerManagerName, schedulerName}
}

func controlPlaneArgs(p paths, bins binaries, name string) []string {
	switch name {
	case etcdName:
		return etcdArgs(p, bins)
	case apiserverName:
		return apiserverArgs(p, bins)
	case controllerManagerName:
		return controllerManagerArgs(p, bins)
	case schedulerName:
		return schedulerArgs(p, bins)
	}
	return nil
}

func etcdArgs(p paths, bins binaries) []string {
	client, peer := "https://"+hostIP+":2379", "https://"+hostIP+":2380"
	return []string{
		bins.path("etcd", "usr/bin/etcd"),
		"--name=lab", "--data-dir=" + p.etcdData(),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=lab=" + peer,
		// Pods can reach this address: without a certificate they get nothing.
		"--client-cert-auth", "--trusted-ca-file=" + p.pki("ca.crt"),
		"--cert-file=" + p.pki("etcd.crt"), "--key-file=" + p.pki("etcd.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + p.pki("ca.crt"),
		"--peer-cert-file=" + p.pki("etcd.crt"), "--peer-key-file=" + p.pki("etcd.key"),
		"--logger=zap", "--log-level=warn",
	}
}

func apiserverArgs(p paths, bins binaries) []string {
	return []string{
		bins.path("kubernetes", "kube-apiserver"),
		"--bind-address=" + hostIP, "--advertise-address=" + hostIP, "--secure-port=6443",
		"--tls-cert-file=" + p.pki("apiserver.crt"), "--tls-private-key-file=" + p.pki("apiserver.key"),
		"--client-ca-file=" + p.pki("ca.crt"),
		"--etcd-servers=https://" + hostIP + ":2379", "--etcd-cafile=" + p.pki("ca.crt"),
		"--etcd-certfile=" + p.pki("apiserver-client.crt"), "--etcd-keyfile=" + p.pki("apiserver-client.key"),
		// Without this, logs, exec and proxy look the node's name up in DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + p.pki("ca.crt"),
		"--kubelet-client-certificate=" + p.pki("apiserver-client.crt"),
		"--kubelet-client-key=" + p.pki("apiserver-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.pki("service-account.key"),
		"--service-account-signing-key-file=" + p.pki("service-account.key"),
		"--service-cluster-ip-range=" + serviceNetwork,
		"--requestheader-client-ca-file=" + p.pki("ca.crt"), "--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.pki("front-proxy.crt"), "--proxy-client-key-file=" + p.pki("front-proxy.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false",
		"--audit-policy-file=" + p.pki("audit-policy.json"), "--audit-log-path=" + p.auditLog(),
		"--audit-log-maxsize=200", "--audit-log-maxbackup=1",
	}
}

func controllerManagerArgs(p paths, bins binaries) []string {
	return []string{
		bins.path("kubernetes", "kube-controller-manager"),
		"--kubeconfig=" + p.kubeconfig("controller-manager"),
		"--authentication-kubeconfig=" + p.kubeconfig("controller-manager"),
		"--authorization-kubeconfig=" + p.kubeconfig("controller-manager"),
		"--bind-address=" + hostIP, "--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.pki("service-account.key"),
		"--root-ca-file=" + p.pki("ca.crt"),
		"--cluster-signing-cert-file=" + p.pki("ca.crt"), "--cluster-signing-key-file=" + p.pki("ca.key"),
		// An autoscaler looks again soon, which a story waits for.
		"--horizontal-pod-autoscaler-sync-period=5s",
		"--profiling=false",
	}
}

func schedulerArgs(p paths, bins binaries) []string {
	return []string{
		bins.path("kubernetes", "kube-scheduler"),
		"--kubeconfig=" + p.kubeconfig("scheduler"),
		"--authentication-kubeconfig=" + p.kubeconfig("scheduler"),
		"--authorization-kubeconfig=" + p.kubeconfig("scheduler"),
		"--bind-address=" + hostIP, "--leader-elect=false", "--profiling=false",
	}
}

// auditPolicy records who asked for what, once a request is answered, so that
// tests can count requests. What the cluster's own parts say without end is
// left out.
func auditPolicy() []byte {
	type m = map[string]any
	return mustJSON(m{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
		"omitStages":        []string{"RequestReceived"},
		"omitManagedFields": true,
		"rules": []m{
			{"level": "None", "users": []string{
				"system:apiserver", "kube-apiserver", "system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy"}},
			{"level": "None", "userGroups": []string{"system:nodes", "system:serviceaccounts:kube-system"}},
			{"level": "Metadata"},
		},
	})
}

// startControlPlane starts those of the control plane that do not run yet.
func startControlPlane(p paths, bins binaries, groups cgroups, names ...string) error {
	for _, name := range names {
		if err := startControlPlanePart(p, bins, groups, name); err != nil {
			return err
		}
	}
	return nil
}

func startControlPlanePart(p paths, bins binaries, groups cgroups, name string) error {
	if _, alive := recordedProcess(p.pids(), name); alive {
		return nil
	}
	// One that was started by a killed up is in its cgroup and in no record.
	if err := groups.kill(controlPlaneCgroup(name), 5*time.Second); err != nil {
		return err
	}
	group, err := groups.make(controlPlaneCgroup(name))
	if err != nil {
		return err
	}
	_, err = startDaemon(p.pids(), daemon{
		name: name, args: controlPlaneArgs(p, bins, name), log: p.log(name), cgroup: group,
	})
	return err
}

func controlPlaneCgroup(name string) string { return filepath.Join("control-plane", name) }

// prepareControlPlane writes the files that the control plane starts from.
func prepareControlPlane(p paths) error {
	if err := makePKI(p); err != nil {
		return err
	}
	if err := os.MkdirAll(p.logs(), 0o755); err != nil {
		return fmt.Errorf("cannot make the log folder: %w", err)
	}
	if err := os.MkdirAll(p.etcdData(), 0o700); err != nil {
		return fmt.Errorf("cannot make etcd's folder: %w", err)
	}
	return writeFileAtomic(p.pki("audit-policy.json"), auditPolicy())
}

// apiClient asks the API server a few plain questions as its own kubelet
// client, which may do all.
type apiClient struct{ http *http.Client }

func newAPIClient(p paths) (apiClient, error) {
	cert, err := tls.LoadX509KeyPair(p.pki("apiserver-client.crt"), p.pki("apiserver-client.key"))
	if err != nil {
		return apiClient{}, fmt.Errorf("cannot read the API client's certificate: %w", err)
	}
	ca, err := os.ReadFile(p.pki("ca.crt"))
	if err != nil {
		return apiClient{}, fmt.Errorf("cannot read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return apiClient{&http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
	}}, nil
}

func (c apiClient) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiserverURL+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.300s", path, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// waitAPI waits until the API server is ready to serve; if it or etcd ends
// meanwhile, the error holds the end of its log.
func waitAPI(ctx context.Context, p paths, show *progress) error {
	client, err := newAPIClient(p)
	if err != nil {
		return err
	}
	show.doing("control plane: starting")
	var last error
	ready := waitFor(ctx, 100*time.Millisecond, func() bool {
		if err := allAlive(p, etcdName, apiserverName); err != nil {
			last = err
			return true
		}
		last = client.get(ctx, "/readyz", nil)
		return last == nil
	})
	if !ready && last != nil {
		last = fmt.Errorf("the API server is not ready (%w); the end of its log:\n%s", last, lastLines(p.log(apiserverName), 15))
	}
	if last != nil {
		return fmt.Errorf("cannot start the control plane: %w", last)
	}
	return nil
}

func allAlive(p paths, names ...string) error {
	for _, name := range names {
		if _, alive := recordedProcess(p.pids(), name); !alive {
			return fmt.Errorf("%s ended; the end of its log:\n%s", name, lastLines(p.log(name), 15))
		}
	}
	return nil
}

// nodeReady tells whether the API server has the node as Ready.
func (c apiClient) nodeReady(ctx context.Context, name string) (bool, error) {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+name, &node); err != nil {
		return false, err
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == "Ready" {
			if cond.Status == "True" {
				return true, nil
			}
			return false, errors.New(cond.Message)
		}
	}
	return false, errors.New("it has no Ready condition yet")
}
