package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// killAfter is how much longer than its timeout a run may take: a Go test that
// is out of time first prints where its goroutines are.
const killAfter = 15 * time.Second

// subject is what is run in the machine.
type subject struct {
	name string
	file string   // on the host
	src  string   // the folder of a package on the host, "" for a file
	args []string // before those of the command line
}

// binary is its place in the guest.
func (s subject) binary() string { return path.Join("/subjects", s.name) }

// folder is the working folder in the guest.
func (s subject) folder() string {
	if s.src == "" {
		return "/"
	}
	return path.Join("/src", s.name)
}

// build builds the tests of packages into dir and takes files as they are.
func (o options) build(ctx context.Context, dir string) ([]subject, error) {
	var all []subject
	for _, name := range o.subjects {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			all = append(all, subject{name: filepath.Base(name), file: name})
			continue
		}
		packages, err := listPackages(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			s := subject{name: p.ImportPath, file: filepath.Join(dir, strings.ReplaceAll(p.ImportPath, "/", "_")), src: p.Dir}
			s.name = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
			s.args = []string{"-test.v", "-test.timeout=" + o.timeout.String()}
			if err := buildTest(ctx, s.file, p.ImportPath); err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

type goPackage struct {
	Dir, ImportPath           string
	Module                    struct{ Path string }
	TestGoFiles, XTestGoFiles []string
}

// listPackages names the packages that a pattern means and that have tests.
func listPackages(ctx context.Context, pattern string) ([]goPackage, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-json=Dir,ImportPath,Module,TestGoFiles,XTestGoFiles", pattern)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot find the package %s: %w", pattern, err)
	}
	var found []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("cannot read what go list says: %w", err)
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("cannot test %s: it has no tests", pattern)
	}
	return found, nil
}

func buildTest(ctx context.Context, file, importPath string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", file, importPath)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the tests of %s: %w:\n%s", importPath, err, out)
	}
	return nil
}

// plan lists each subject on each disk.
func (o options) plan(subjects []subject, modules []string) guest.Plan {
	p := guest.Plan{Systemd: o.systemd}
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	if o.systemd {
		env = append(env, guest.SystemdEnv+"=1")
	}
	for _, m := range modules {
		p.Modules = append(p.Modules, inGuest(m))
	}
	for n, d := range o.disks {
		on := d.inGuest(n)
		p.Disks = append(p.Disks, on)
		for _, s := range subjects {
			p.Runs = append(p.Runs, guest.Run{
				Name: s.name + " on " + d.fs.name, Path: s.binary(), Dir: s.folder(), Tmp: on.Dir, Timeout: o.timeout + killAfter,
				Args: append(s.args[:len(s.args):len(s.args)], o.args...),
				Env:  append(env[:len(env):len(env)], o.env...),
			})
		}
	}
	return p
}

func inGuest(module string) string { return path.Join("/modules", filepath.Base(module)) }

// pack writes the initramfs.
func (o options) pack(ctx context.Context, file string, subjects []subject, modules []string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("cannot make the initramfs: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := newArchive(f)
	if err != nil {
		return err
	}
	self, err := selfStatic()
	if err != nil {
		return err
	}
	plan, err := json.Marshal(o.plan(subjects, modules))
	if err != nil {
		return fmt.Errorf("cannot write the plan: %w", err)
	}
	if err := errors.Join(a.file("init", self), a.text(guest.PlanFile, string(plan)), a.etc()); err != nil {
		return err
	}
	if o.systemd {
		root, err := fetch(ctx, o.lab, "systemd")
		if err != nil {
			return err
		}
		if err := a.shipSystemd(ctx, root); err != nil {
			return err
		}
	}
	for _, m := range modules {
		if err := a.file(inGuest(m), m); err != nil {
			return err
		}
	}
	for _, s := range subjects {
		if err := errors.Join(a.ship(ctx, s.binary(), s.file), a.source(s)); err != nil {
			return err
		}
	}
	for _, name := range o.programs {
		found, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("cannot take %s along: %w", name, err)
		}
		if err := a.ship(ctx, found, found); err != nil {
			return err
		}
	}
	return a.close()
}

// etc adds what programs ask of every machine.
func (a *archive) etc() error {
	return errors.Join(
		a.folder("root"),
		a.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
		a.text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
		a.text("etc/hosts", "127.0.0.1 localhost vm\n"),
		a.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
	)
}

// source adds the folder in which a package's tests run.
func (a *archive) source(s subject) error {
	if err := a.folder(strings.TrimPrefix(s.folder(), "/")); err != nil || s.src == "" {
		return err
	}
	data := filepath.Join(s.src, "testdata")
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return a.tree(path.Join(s.folder(), "testdata"), data)
}

// selfStatic is this program's file, which is also the guest's process 1.
func selfStatic() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find this program: %w", err)
	}
	static, err := isStatic(self)
	if err == nil && !static {
		err = fmt.Errorf("%s cannot run in the machine: build it with CGO_ENABLED=0", self)
	}
	return self, err
}
