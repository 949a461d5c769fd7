package main

import "testing"

func TestBesidePods(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"the kubelet's root is the node's":  {"5:devices:/kubepods/besteffort/podx/y\n0::/\n", ""},
		"under systemd":                     {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podx.slice/cri-containerd-y.scope\n", ""},
		"a root of its own":                 {"9:name=systemd:/\n5:devices:/lab/node-1/kubepods/podx/y\n0::/\n", "lab/node-1/nodeagent"},
		"version 2 and a root of its own":   {"0::/lab/kubepods/podx/y\n", "lab/nodeagent"},
		"a cgroup namespace of its own":     {"0::/\n", ""},
		"no pod":                            {"0::/system.slice/nodeagent.service\n", ""},
		"what is called so is not a prefix": {"0::/my-kubepods/x\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := besidePods(c.text); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
