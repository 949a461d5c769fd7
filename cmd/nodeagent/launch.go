package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

// launchOptions are the flags of `nodeagent launch`; each is a field of a
// Binary.
type launchOptions struct {
	config, file, name, sha256, command, profile, restart, health, signedBy string
	cpu, memory, disk, cpuset, user, network                                string
	pids                                                                    int64
	ports, held, env, rlimits                                               []string
	strip                                                                   int
	insecure, bestEffort, print                                             bool
	wait                                                                    time.Duration
}

func newLaunchCommand() *cobra.Command {
	o := launchOptions{}
	cmd := &cobra.Command{
		Use:   "launch URL [flags] [-- args]",
		Short: "Fetch a program from a URL and keep it running on this node",
		Long: "Fetch a program from a URL and keep it running on this node, shut in, watched and started again when it ends.\n" +
			"It outlives the agent and comes again after a reboot, until `nodeagent stop NAME`. What follows -- are its\n" +
			"arguments; $(PORT0) and the like are replaced. The flags make a Binary, which --print shows: as a file in\n" +
			"/etc/nodeagent/binaries.d or as an object of the cluster it means the same.",
		Example: "  nodeagent launch --sha256 9f5c… --strip 1 --port metrics=9100 --health http:metrics/ --profile host-observer \\\n" +
			"    https://example.org/node_exporter-1.9.1.linux-amd64.tar.gz -- --web.listen-address=:$(PORT0)",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := o.binary(args)
			if err != nil {
				return err
			}
			if o.print {
				return printBinary(cmd.OutOrStdout(), b)
			}
			cfg, err := loadConfig(o.config, cmd.Flags().Changed("config"))
			if err != nil {
				return err
			}
			return launch(cmd.Context(), cfg.Socket, b, o.wait, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", defaultConfigFile, "configuration `file`; without the flag it may be missing")
	f.StringVarP(&o.file, "file", "f", "", "launch the Binary in this `file` in place of a URL")
	f.StringVar(&o.name, "name", "", "what it is called; default: the program's name in the URL")
	f.StringVar(&o.sha256, "sha256", "", "the `digest` of what the URL answers; nothing else is run")
	f.StringVar(&o.signedBy, "signed-by", "", "the `name` of the key by which it has to be signed")
	f.BoolVar(&o.insecure, "insecure", false, "run it without digest and signature")
	f.StringVar(&o.command, "command", "", "the program's `path` in what was fetched; default: ./NAME")
	f.IntVar(&o.strip, "strip", 0, "leading folders that are dropped from names in an archive")
	f.StringArrayVarP(&o.ports, "port", "p", nil, "a port of the host as `NAME[=NUMBER]`; without the number one of the node's range")
	f.StringArrayVar(&o.held, "held-port", nil, "the same, `NAME[=NUMBER]`, with the listening socket passed to the program")
	f.StringArrayVarP(&o.env, "env", "e", nil, "a variable, `NAME=VALUE`")
	f.StringVar(&o.cpu, "cpu", "", "most cpu, in cores (default 1)")
	f.StringVar(&o.memory, "memory", "", "most memory (default 128Mi)")
	f.StringVar(&o.disk, "disk", "", "most that its sandbox folder may hold (default 256Mi)")
	f.Int64Var(&o.pids, "pids", 0, "most processes and threads (default 256)")
	f.StringVar(&o.cpuset, "cpuset", "", "the `cores` on which it runs, such as 0-3,6")
	f.StringArrayVar(&o.rlimits, "rlimit", nil, "a limit of setrlimit(2), `NAME=SOFT[:HARD]`: nofile=1024:4096")
	f.StringVar(&o.user, "user", "", "whom it runs as: a name, a number, or UID:GID (default a uid of its own)")
	f.StringVar(&o.network, "network", "", "host, or none: loopback alone (default host)")
	f.StringVar(&o.profile, "profile", "", "isolated, host-observer or privileged (default isolated)")
	f.BoolVar(&o.bestEffort, "best-effort", false, "run it even where not all of that can be enforced")
	f.StringVar(&o.health, "health", "", "how its health is asked: http:PORT/PATH or tcp:PORT, by the port's `name`")
	f.StringVar(&o.restart, "restart", "", "Always, OnFailure or Never (default Always)")
	f.BoolVar(&o.print, "print", false, "print the Binary and launch nothing")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait until it is up; 0: not at all")
	return cmd
}

// binary makes the Binary of a command line and tells what is wrong with it in
// the API server's words.
func (o launchOptions) binary(args []string) (*v1alpha1.Binary, error) {
	if o.file != "" {
		if len(args) > 0 {
			return nil, errors.New("want a URL or --file, not both")
		}
		return readBinary(o.file)
	}
	if len(args) == 0 {
		return nil, errors.New("want a URL: nodeagent launch URL [flags] [-- args]")
	}
	b := &v1alpha1.Binary{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Binary"},
		ObjectMeta: metav1.ObjectMeta{Name: o.name},
	}
	if b.Name == "" {
		b.Name = v1alpha1.BinaryName(args[0])
	}
	a := v1alpha1.Artifact{URL: args[0], Insecure: o.insecure, StripComponents: o.strip}
	if o.sha256 != "" {
		a.SHA256 = map[string]v1alpha1.Digest{"*": v1alpha1.Digest(o.sha256)}
	}
	if o.signedBy != "" {
		a.Signature = &v1alpha1.Signature{Key: o.signedBy}
	}
	b.Spec = v1alpha1.BinarySpec{
		Fetch: []v1alpha1.Artifact{a}, User: o.user, Network: v1alpha1.Network(o.network), Profile: v1alpha1.Profile(o.profile), RestartPolicy: v1alpha1.RestartPolicy(o.restart), Roles: []string{"*"},
	}
	if o.bestEffort {
		b.Spec.Enforcement = v1alpha1.EnforcementBestEffort
	}
	if program := o.command; program != "" || len(args) > 1 {
		if program == "" {
			program = b.Spec.Defaulted().Command[0]
		}
		b.Spec.Command = append([]string{program}, args[1:]...)
	}
	if err := errors.Join(o.addPorts(b), o.addEnv(b), o.addResources(b), o.addRlimits(b), o.addHealth(b)); err != nil {
		return nil, errors.New(oneLine(err))
	}
	return b, b.Validate().ToAggregate()
}

func (o launchOptions) addPorts(b *v1alpha1.Binary) error {
	var errs []error
	add := func(text string, held bool) {
		name, number, given := strings.Cut(text, "=")
		n, err := strconv.ParseInt(number, 10, 32)
		if given && err != nil {
			errs = append(errs, fmt.Errorf("cannot read port %q: want NAME or NAME=NUMBER", text))
		}
		b.Spec.Ports = append(b.Spec.Ports, v1alpha1.Port{Name: name, Port: int32(n), Held: held})
	}
	for _, p := range o.ports {
		add(p, false)
	}
	for _, p := range o.held {
		add(p, true)
	}
	return errors.Join(errs...)
}

func (o launchOptions) addEnv(b *v1alpha1.Binary) error {
	for _, e := range o.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return fmt.Errorf("cannot read variable %q: want NAME=VALUE", e)
		}
		b.Spec.Env = append(b.Spec.Env, v1alpha1.EnvVar{Name: name, Value: value})
	}
	return nil
}

func (o launchOptions) addResources(b *v1alpha1.Binary) error {
	for _, r := range []struct {
		flag, text string
		to         **resource.Quantity
	}{{"cpu", o.cpu, &b.Spec.Resources.CPU}, {"memory", o.memory, &b.Spec.Resources.Memory}, {"disk", o.disk, &b.Spec.Resources.Disk}} {
		if r.text == "" {
			continue
		}
		q, err := resource.ParseQuantity(r.text)
		if err != nil {
			return fmt.Errorf("cannot read --%s %q: want a quantity such as 250m or 64Mi", r.flag, r.text)
		}
		*r.to = &q
	}
	if o.pids != 0 {
		b.Spec.Resources.Pids = &o.pids
	}
	b.Spec.Resources.CPUSet = o.cpuset
	return nil
}

func (o launchOptions) addRlimits(b *v1alpha1.Binary) error {
	for _, text := range o.rlimits {
		name, values, _ := strings.Cut(text, "=")
		first, second, both := strings.Cut(values, ":")
		r := v1alpha1.Rlimit{Name: name}
		var err, hardErr error
		r.Soft, err = strconv.ParseInt(first, 10, 64)
		if both {
			r.Hard = new(int64)
			*r.Hard, hardErr = strconv.ParseInt(second, 10, 64)
		}
		if err != nil || hardErr != nil {
			return fmt.Errorf("cannot read rlimit %q: want NAME=SOFT or NAME=SOFT:HARD", text)
		}
		b.Spec.Rlimits = append(b.Spec.Rlimits, r)
	}
	return nil
}

func (o launchOptions) addHealth(b *v1alpha1.Binary) error {
	if o.health == "" {
		return nil
	}
	kind, rest, _ := strings.Cut(o.health, ":")
	port, path, slash := strings.Cut(rest, "/")
	h := &v1alpha1.HealthCheck{Interval: &metav1.Duration{Duration: 10 * time.Second}}
	switch {
	case kind == "http" && slash:
		h.HTTP = &v1alpha1.HTTPProbe{Port: port, Path: "/" + path}
	case kind == "http":
		h.HTTP = &v1alpha1.HTTPProbe{Port: port}
	case kind == "tcp" && !slash:
		h.TCP = &v1alpha1.TCPProbe{Port: port}
	default:
		return fmt.Errorf("cannot read health %q: want http:PORT/PATH or tcp:PORT", o.health)
	}
	b.Spec.Health = h
	return nil
}

func printBinary(out io.Writer, b *v1alpha1.Binary) error {
	text, err := plainYAML(b)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// plainYAML leaves out what an object has only in the API server.
func plainYAML(b *v1alpha1.Binary) ([]byte, error) {
	return yaml.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": "Binary", "metadata": map[string]any{"name": b.Name}, "spec": b.Spec,
	})
}

// launch hands the Binary to the agent and tells how it goes, until it is up.
func launch(ctx context.Context, socket string, b *v1alpha1.Binary, wait time.Duration, out io.Writer) error {
	text, err := plainYAML(b)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := askLaunch(ctx, socket, http.MethodPost, binariesPath, bytes.NewReader(text), nil); err != nil {
		return fmt.Errorf("cannot launch %s: %w", b.Name, err)
	}
	if wait == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	last := ""
	for {
		var l launched
		err := askLaunch(ctx, socket, http.MethodGet, binariesPath+"/"+b.Name, nil, &l)
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not up after %s: it goes on; nodeagent ps tells how (seen last: %s)", b.Name, wait, cmp.Or(last, "nothing"))
		}
		if err == nil && l.Status != nil {
			if line := stateLine(l); line != last {
				fmt.Fprintf(out, "%6.2fs  %s\n", time.Since(began).Seconds(), line)
				last = line
			}
			if done, err := isUp(l, b); done {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func stateLine(l launched) string {
	line := l.Name + " " + string(l.Status.State)
	if l.Status.Endpoints != "" && lifecycle.Running(l.Status.State) {
		line += " " + l.Status.Endpoints
	}
	if l.Status.Message != "" {
		line += ": " + l.Status.Message
	}
	return line
}

// isUp is true when there is nothing more to wait for.
func isUp(l launched, b *v1alpha1.Binary) (bool, error) {
	s := l.Status
	if l.Binary == nil || !sameSpec(l.Binary, b) || s.Next != nil {
		return false, nil // the one before, still
	}
	switch {
	case s.RejectedGeneration != 0 && s.RejectedGeneration == s.ObservedGeneration:
		return true, fmt.Errorf("%s: %s", b.Name, s.Message)
	case s.State == v1alpha1.StateFailed:
		return true, fmt.Errorf("%s cannot run here: %s", b.Name, s.Message)
	case s.State == v1alpha1.StateFinished && s.LastExit != nil && s.LastExit.Code != 0:
		return true, fmt.Errorf("%s: %s", b.Name, s.LastExit.Message)
	case s.State == v1alpha1.StateFinished:
		return true, nil
	}
	return s.State == v1alpha1.StateHealthy && s.RunningGeneration == s.ObservedGeneration, nil
}

func sameSpec(a, b *v1alpha1.Binary) bool {
	x, errX := yaml.Marshal(a.Spec.Defaulted())
	y, errY := yaml.Marshal(b.Spec.Defaulted())
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
