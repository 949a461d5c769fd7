package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// nodeSpec is all that a node's init must know. It gets it through a pipe once
// the machine's side is ready; an end of the pipe without a spec means that up
// was killed, and the init ends.
type nodeSpec struct {
	Number   int
	Disk     string            // the file that is the node's disk
	Root     string            // folder on the machine where it is mounted, in the node's namespace only
	Logs     string            // folder on the machine
	Socket   string            // where the init takes orders
	Pids     string            // where it records itself
	Programs map[string]string // folder in the node → folder of the cache
	Files    map[string][]byte
	Children []child
}

func (s nodeSpec) name() string { return nodeName(s.Number) }

func readNodeSpec(r io.Reader) (nodeSpec, error) {
	var s nodeSpec
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return nodeSpec{}, fmt.Errorf("cannot read what the node is to be: %w", err)
	}
	return s, nil
}

func newNodeSpec(p paths, bins binaries, n int) (nodeSpec, error) {
	mayLower, err := mayLowerOOMScore()
	if err != nil {
		return nodeSpec{}, err
	}
	files, err := nodeFiles(p, n, mayLower)
	if err != nil {
		return nodeSpec{}, err
	}
	return nodeSpec{
		Number: n, Disk: p.nodeDisk(n), Root: p.node(n) + "/root", Logs: p.nodeLogs(n),
		Socket: p.nodeSocket(n), Pids: p.pids(),
		Programs: map[string]string{
			nodePrograms + "/kubernetes": bins["kubernetes"],
			nodePrograms + "/containerd": bins["containerd"],
			nodePrograms + "/runc":       bins["runc"],
			"/opt/cni/bin":               bins["cni"],
		},
		Files: files, Children: nodeChildren(n),
	}, nil
}
