package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// definitions are CustomResourceDefinitions of another project as they stand in
// its Go module. A go.mod below test/lab/parts says which version, as of what is
// built, and the go.sum beside it what the module's checksum is.
type definitions struct {
	name   string // folder below parts and name in the cache
	module string
	files  []string // in the module; they lie flat in the cache
}

func projectDefinitions() []definitions {
	return []definitions{
		{"argo-rollouts", "github.com/argoproj/argo-rollouts", []string{"manifests/crds/rollout-crd.yaml"}},
		{"kruise", "github.com/openkruise/kruise", []string{
			"config/crd/bases/apps.kruise.io_clonesets.yaml", "config/crd/bases/apps.kruise.io_statefulsets.yaml",
		}},
	}
}

// needs is the file by which a whole folder is known.
func (d definitions) needs() string { return filepath.Base(d.files[0]) }

// fetch returns the cache's folder with the files. What the cache has needs no
// network.
func (d definitions) fetch(ctx context.Context, cache, parts string, show *progress) (string, error) {
	if parts == "" {
		return builtBefore(cache, d.name, d.needs())
	}
	version, sum, err := d.pinned(parts)
	if err != nil {
		return "", err
	}
	return cached(ctx, cache, d.key(version, sum), d.needs(), show, func(temp string) error {
		show.doing("%s %s: downloading its module", d.name, version)
		dir, err := downloadModule(ctx, temp, d.module+"@"+version, sum)
		if err != nil {
			return err
		}
		for _, file := range d.files {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return fmt.Errorf("cannot take the definitions of %s out of its module: %w", d.name, err)
			}
			if err := os.WriteFile(filepath.Join(temp, filepath.Base(file)), text, 0o644); err != nil {
				return fmt.Errorf("cannot cache the definitions of %s: %w", d.name, err)
			}
		}
		show.line("%s %s: its definitions were taken out of its module", d.name, version)
		return nil
	})
}

// key changes with everything that changes the result.
func (d definitions) key(version, sum string) string {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s %s", sum, d.files))
	return fmt.Sprintf("%s-%s-%s", d.name, version, hex.EncodeToString(hash[:])[:12])
}

// pinned reads the module's version and checksum.
func (d definitions) pinned(parts string) (version, sum string, err error) {
	dir := filepath.Join(parts, d.name)
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", "", fmt.Errorf("cannot read the pinned version of %s: %w", d.name, err)
	}
	gosum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", "", fmt.Errorf("cannot read the checksum of %s: %w", d.name, err)
	}
	if version, err = requiredVersion(string(gomod), d.module); err != nil {
		return "", "", fmt.Errorf("cannot tell the version of %s: %w", d.name, err)
	}
	for line := range strings.Lines(string(gosum)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == d.module && f[1] == version {
			return version, f[2], nil
		}
	}
	return "", "", fmt.Errorf("cannot tell the checksum of %s: its go.sum has no %s %s", d.name, d.module, version)
}

// downloadModule has the go command fetch a module, as it would to build it,
// and returns its folder. Whatever the go command holds it to, its checksum has
// to be the pinned one.
func downloadModule(ctx context.Context, temp, module, sum string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = temp, part{}.env()
	out, failed := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("cannot download %s: %w", module, failed)
	}
	if failed != nil || got.Error != "" {
		return "", fmt.Errorf("cannot download %s: %s", module, got.Error)
	}
	if got.Sum != sum {
		return "", fmt.Errorf("cannot use %s: its checksum is %s, and go.sum has %s", module, got.Sum, sum)
	}
	return got.Dir, nil
}
