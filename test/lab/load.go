package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
)

// loadImage imports an OCI or docker archive into a node's containerd where
// the kubelet looks for images. It is pinned: nothing can be pulled again, and
// under disk pressure the kubelet deletes each image that is not in use.
func loadImage(ctx context.Context, p paths, groups cgroups, n int, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("cannot load the image: %w", err)
	}
	defer f.Close()
	var said bytes.Buffer
	err = inNode(ctx, p, groups, n, streams{in: f, out: &said, err: &said}, []string{
		"ctr", "--namespace=k8s.io", "images", "import", "--label", "io.cri-containerd.pinned=pinned", "-"})
	if err != nil {
		return fmt.Errorf("cannot load %s on %s: %w: %s", archive, nodeName(n), err, strings.TrimSpace(said.String()))
	}
	return nil
}
