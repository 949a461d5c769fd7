package main

import (
	"context"
	"fmt"
	"strings"
)

// fetchable names what fetch knows: Debian's packages, and what is built from or
// taken out of Go modules.
func fetchable() []string {
	var names []string
	for _, b := range debianBundles() {
		names = append(names, b.name)
	}
	for _, p := range goParts() {
		names = append(names, p.name)
	}
	for _, d := range projectDefinitions() {
		names = append(names, d.name)
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
	parts, err := partsFolder()
	if err != nil {
		return "", err
	}
	for _, d := range projectDefinitions() {
		if d.name == name {
			return d.fetch(ctx, cache, parts, show)
		}
	}
	for _, p := range goParts() {
		if p.name == name {
			return p.ensure(ctx, cache, parts, name, show)
		}
	}
	return "", fmt.Errorf("cannot fetch %q: known are %s", name, strings.Join(fetchable(), ", "))
}
