package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// fetchable names what fetch knows: Debian's packages and the parts built from
// Go modules.
func fetchable() []string {
	var names []string
	for _, b := range debianBundles() {
		names = append(names, b.name)
	}
	for _, p := range goParts() {
		names = append(names, p.name)
	}
	return names
}

// fetch returns the cache's folder of one part, made if need be, for tests that
// want a real containerd, Prometheus or etcd without a cluster.
func fetch(ctx context.Context, cache, name string, show *progress) (string, error) {
	for _, b := range debianBundles() {
		if b.name == name {
			return b.fetch(ctx, cache, show)
		}
	}
	i := slices.IndexFunc(goParts(), func(p part) bool { return p.name == name })
	if i < 0 {
		return "", fmt.Errorf("cannot fetch %q: known are %s", name, strings.Join(fetchable(), ", "))
	}
	parts, err := partsFolder()
	if err != nil {
		return "", err
	}
	return goParts()[i].ensure(ctx, cache, parts, name, show)
}
