package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// build compiles the part into dir and shows which package of how many it is
// at. First go list fetches the modules, then go build -n tells without
// compiling which packages Go's build cache lacks, then go build -v names each
// as it comes to it.
func (p part) build(ctx context.Context, src source, dir, title string, show *progress) error {
	group, err := buildCgroup()
	if err != nil {
		return err
	}
	defer group.close()

	show.doing("%s: looking for its modules", title)
	fetched := 0
	var list bytes.Buffer
	err = p.goTool(ctx, group, src.dir, &list, func(line string) {
		if what, ok := strings.CutPrefix(line, "go: downloading "); ok {
			fetched++
			show.doing("%s: downloading module %d, %s", title, fetched, what)
		}
	}, "list", "-deps", p.target)
	if err != nil {
		return fmt.Errorf("cannot fetch the modules of %s: %w", p.name, err)
	}

	args := append(p.buildFlags(src.version), "-o", dir+"/", p.target)
	show.doing("%s: looking what to compile", title)
	missing := 0
	err = p.goTool(ctx, group, src.dir, io.Discard, func(line string) {
		if isPackageLine(line) {
			missing++
		}
	}, append([]string{"build", "-n"}, args...)...)
	if err != nil {
		return fmt.Errorf("cannot plan the build of %s: %w", p.name, err)
	}

	if missing > 1000 {
		show.line("%s: %d packages to compile; on two cores that takes some 15 minutes, this once", title, missing)
	}
	at := 0
	total := len(strings.Fields(list.String()))
	show.doing("%s: linking (%d packages are compiled already)", title, total)
	err = p.goTool(ctx, group, src.dir, io.Discard, func(line string) {
		if at++; at < missing {
			show.doing("%s: package %d of %d, %s", title, at, missing, line)
		} else {
			show.doing("%s: last of %d packages compiled, linking", title, missing)
		}
	}, append([]string{"build", "-v"}, args...)...)
	if err != nil {
		return fmt.Errorf("cannot build %s: %w", p.name, err)
	}
	return nil
}

// isPackageLine knows the line by which go build -n heads a package's commands.
func isPackageLine(line string) bool {
	name, ok := strings.CutPrefix(line, "# ")
	return ok && name != "" && !strings.ContainsAny(name, " \t")
}

// goTool runs the go command in dir and hands on each line of its stderr. When
// it fails, those lines are the error.
func (p part) goTool(ctx context.Context, group *buildGroup, dir string, stdout io.Writer, line func(string), args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = p.env()
	cmd.Stdout = stdout
	cmd.SysProcAttr = group.attr()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("the go command is not in PATH: install Go")
		}
		return err
	}
	var said []string
	scan := bufio.NewScanner(stderr)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		text := scan.Text()
		line(text)
		if said = append(said, text); len(said) > 40 {
			said = said[1:]
		}
	}
	if err := errors.Join(scan.Err(), cmd.Wait()); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("go %s: %w:\n  %s", args[0], err, strings.Join(said, "\n  "))
	}
	return nil
}

// buildGroup is the cgroup of the compilers, so that down ends them too when
// their lab command was killed.
type buildGroup struct {
	groups cgroups
	name   string
	dir    *os.File
}

// buildCgroup makes it. Without the right to (a build as an ordinary user)
// there is none, and the compilers run where the lab does.
func buildCgroup() (*buildGroup, error) {
	if os.Geteuid() != 0 {
		return &buildGroup{}, nil
	}
	groups, err := findCgroups()
	if err != nil {
		return nil, err
	}
	self, err := lookProcess(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("cannot look at this process: %w", err)
	}
	name := buildGroupName(self)
	dir, err := groups.make(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the build's cgroup: %w", err)
	}
	return &buildGroup{groups: groups, name: name, dir: f}, nil
}

// buildGroupName tells whose build it is.
func buildGroupName(p process) string { return fmt.Sprintf("build-%d-%d", p.pid, p.start) }

// isLivingBuild tells whether a cgroup belongs to a lab command that runs.
func isLivingBuild(name string) bool {
	var p process
	_, err := fmt.Sscanf(name, "build-%d-%d", &p.pid, &p.start)
	return err == nil && name == buildGroupName(p) && p.alive()
}

func (g *buildGroup) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if g.dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.dir.Fd())
	}
	return attr
}

func (g *buildGroup) close() {
	if g.dir == nil {
		return
	}
	g.dir.Close()
	_ = g.groups.remove(g.name)
	g.groups.removeTop() // stays while the lab runs
}
