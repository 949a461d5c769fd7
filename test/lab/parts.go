package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// part is one upstream that is built from Go modules. Each has a go.mod of its
// own below test/lab/parts, so that it is built with the versions of its
// dependencies that its authors tested; the go.mod's tool lines say which
// programs are wanted.
type part struct {
	name    string                      // folder below parts and name in the cache
	module  string                      // the module whose version is the part's; "" if the source is in the folder
	version string                      // the part's version if module is ""
	target  string                      // what go build is asked for
	needs   string                      // one program of it, to tell a whole part
	flags   []string                    // further build flags
	ldflags func(version string) string // nil: only stripped
	cgo     bool
	tools   []systemTool // of the machine, to build it
}

const stripped = "-s -w"

func goParts() []part {
	return []part{
		{name: "kubernetes", module: "k8s.io/kubernetes", target: "tool", needs: "kubelet", ldflags: kubernetesVersion},
		{name: "containerd", module: "github.com/containerd/containerd/v2", target: "tool", needs: "containerd",
			ldflags: func(v string) string {
				return stripped + " -X github.com/containerd/containerd/v2/version.Version=" + v
			}},
		// Without the seccomp tag every pod fails: "seccomp not supported".
		{name: "runc", module: "github.com/opencontainers/runc", target: "tool", needs: "runc",
			flags: []string{"-tags", "seccomp"}, cgo: true,
			tools: []systemTool{{"gcc", "gcc"}, {"", "libc6-dev"}, {"pkg-config", "pkg-config"}, {"", "libseccomp-dev"}}},
		{name: "cni", module: "github.com/containernetworking/plugins", target: "tool", needs: "bridge"},
		{name: "pause", version: "v1", target: ".", needs: "pause"},
	}
}

// kubernetesVersion stamps the version as Kubernetes' own build scripts do:
// kubelet and apiserver compare theirs.
func kubernetesVersion(v string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	const pkg = "k8s.io/component-base/version."
	return fmt.Sprintf("%s -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s", stripped, pkg, v, pkg, major, pkg, minor)
}

func (p part) env() []string {
	cgo := "0"
	if p.cgo {
		cgo = "1"
	}
	// Settings of the caller's shell must not change what is built.
	return append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
}

func (p part) buildFlags(version string) []string {
	ld := stripped
	if p.ldflags != nil {
		ld = p.ldflags(version)
	}
	return append([]string{"-ldflags", ld}, p.flags...)
}

// partsFolder finds the folder with the parts' go.mod files: where the
// environment says, above the working folder, beside the program, or where the
// program was compiled. "" means that there is none.
func partsFolder() (string, error) {
	if dir := os.Getenv(envPartsDir); dir != "" {
		if !isPartsFolder(dir) {
			return "", fmt.Errorf("%s is %s, but there is no kubernetes/go.mod in it", envPartsDir, dir)
		}
		return filepath.Abs(dir)
	}
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	for _, start := range starts {
		for dir := start; ; dir = filepath.Dir(dir) {
			for _, below := range []string{"parts", "test/lab/parts"} {
				if found := filepath.Join(dir, below); isPartsFolder(found) {
					return found, nil
				}
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", nil
}

func isPartsFolder(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "kubernetes", "go.mod"))
	return err == nil
}

// requiredVersion reads from a go.mod which version of a module it requires.
func requiredVersion(gomod, module string) (string, error) {
	for line := range strings.Lines(gomod) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && f[0] == module && strings.HasPrefix(f[1], "v") {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("the go.mod requires no %s", module)
}

// source is a part's folder and what the build depends on.
type source struct {
	dir     string
	version string
	key     string // name in the cache
}

// look reads a part's source folder. The key changes with everything that
// changes the result: version, dependencies, flags, Go itself.
func (p part) look(parts string) (source, error) {
	dir := filepath.Join(parts, p.name)
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return source{}, fmt.Errorf("cannot read the pinned versions of %s: %w", p.name, err)
	}
	version := p.version
	if p.module != "" {
		if version, err = requiredVersion(string(gomod), p.module); err != nil {
			return source{}, fmt.Errorf("cannot tell the version of %s: %w", p.name, err)
		}
	}
	hash := sha256.New()
	hash.Write(gomod)
	for _, name := range []string{"go.sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return source{}, fmt.Errorf("cannot read the source of %s: %w", p.name, err)
		}
		fmt.Fprintf(hash, "%s %d\n%s", name, len(text), text)
	}
	fmt.Fprintf(hash, "%q cgo=%v %s/%s %s", p.buildFlags(version), p.cgo, runtime.GOOS, runtime.GOARCH, p.target)
	key := fmt.Sprintf("%s-%s-%s", p.name, version, hex.EncodeToString(hash.Sum(nil))[:12])
	return source{dir: dir, version: version, key: key}, nil
}

// binaries tells in which folder each part's programs are.
type binaries map[string]string

func (b binaries) path(part, program string) string { return filepath.Join(b[part], program) }

// buildParts returns all Go parts, building those that the cache lacks.
func buildParts(ctx context.Context, cache string, p *progress) (binaries, error) {
	parts, err := partsFolder()
	if err != nil {
		return nil, err
	}
	built := binaries{}
	all := goParts()
	for i, part := range all {
		dir, err := part.ensure(ctx, cache, parts, fmt.Sprintf("part %d of %d, %s", i+1, len(all), part.name), p)
		if err != nil {
			return nil, err
		}
		built[part.name] = dir
	}
	return built, nil
}

func (p part) ensure(ctx context.Context, cache, parts, title string, show *progress) (string, error) {
	if parts == "" {
		return builtBefore(cache, p.name, p.needs)
	}
	src, err := p.look(parts)
	if err != nil {
		return "", err
	}
	return cached(ctx, cache, src.key, p.needs, show, func(temp string) error {
		if err := installTools(ctx, p.tools, show); err != nil {
			return err
		}
		started := time.Now()
		if err := p.build(ctx, src, temp, title+" "+src.version, show); err != nil {
			return err
		}
		show.line("%s %s: built in %s", title, src.version, time.Since(started).Round(time.Second))
		return nil
	})
}

// builtBefore is what there is of a part where its sources are not found.
func builtBefore(cache, name, needs string) (string, error) {
	dir, ok := newestCached(cache, name, needs)
	if !ok {
		return "", fmt.Errorf("%s is not built yet and its sources are not found: run the lab from within the repository, or set %s to its test/lab/parts", name, envPartsDir)
	}
	return dir, nil
}
