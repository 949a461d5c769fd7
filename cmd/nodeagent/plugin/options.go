package plugin

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// options are the flags. Those that say which cluster and who are kubectl's own.
type options struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides *clientcmd.ConfigOverrides

	all      bool
	selector string

	scope         string
	message       string
	allowDowntime bool
	deadline      time.Duration
	onStall       string

	dryRun  string
	wait    bool
	timeout time.Duration
	output  string

	in       io.Reader
	out, err io.Writer
}

func (o *options) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.all, "all", false, "restart all workloads of the kind in the namespace")
	f.StringVarP(&o.selector, "selector", "l", "", "restart the workloads of the kind with these `labels`, such as app=web,tier!=db")
	f.StringVar(&o.scope, "scope", "", "`scope`: pod, that one pod alone (the default for pod/NAME), or workload, all pods of its owner")
	f.StringVarP(&o.message, "reason", "m", "", "why, in a `sentence`; it stands in the Restart and in the Events")
	f.StringVar(&o.message, "message", "", "the same as --reason")
	f.BoolVar(&o.allowDowntime, "allow-downtime", false, "go on where a new pod cannot be Ready before an old one goes")
	f.DurationVar(&o.deadline, "deadline", 0, "how long the restart may take before it is Stalled; default: the agent's, 10m")
	f.StringVar(&o.onStall, "on-stall", "", "`choice` where it stalls while old pods still serve: leave, or rollback, which writes the pod template as it was before; default: what the workload or its namespace says by annotation, else the agent's, leave")
	f.StringVar(&o.dryRun, "dry-run", "none", "show the plan and what would be refused, and write nothing. client reads with your own rights; server lets the API server's fences speak too")
	f.Lookup("dry-run").NoOptDefVal = "client"
	f.BoolVar(&o.wait, "wait", true, "follow the restart to its end")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to follow it; 0: to its end")
	f.StringVarP(&o.output, "output", "o", "", "print the Restarts as `format`: json, yaml, name or jsonpath=TEMPLATE; the progress then goes to standard error")
	f.StringVar(&o.rules.ExplicitPath, "kubeconfig", "", "kubeconfig `file`; default: $KUBECONFIG, else ~/.kube/config, else the pod's own service account")
	clientcmd.BindOverrideFlags(o.overrides, f, clientcmd.RecommendedConfigOverrideFlags(""))
}

func newOptions() *options {
	return &options{rules: clientcmd.NewDefaultClientConfigLoadingRules(), overrides: &clientcmd.ConfigOverrides{}}
}

// validate is about what can be said before the API server is asked.
func (o *options) validate(args []string) error {
	unprintable := o.printable()
	switch {
	case len(args) == 0:
		return fmt.Errorf("say what to restart: KIND/NAME, KIND NAME, or KIND with --all or -l; deploy/web, sts/db, pod/web-1")
	case unprintable != nil:
		return unprintable
	case !slices.Contains([]string{"", "pod", "workload"}, strings.ToLower(o.scope)):
		return fmt.Errorf("cannot use scope %q: want pod or workload", o.scope)
	case !slices.Contains([]v1alpha1.OnStall{"", v1alpha1.OnStallLeave, v1alpha1.OnStallRollback}, v1alpha1.OnStall(o.onStall)):
		return fmt.Errorf("cannot use --on-stall=%s: want leave or rollback", o.onStall)
	case !slices.Contains([]string{"none", "client", "server"}, o.dryRun):
		return fmt.Errorf("cannot use --dry-run=%s: want client, server or none", o.dryRun)
	case o.timeout < 0 || o.deadline < 0:
		return fmt.Errorf("cannot wait for less than nothing: --timeout and --deadline want a duration such as 5m")
	}
	return nil
}

// printable tells what is wrong with the format.
func (o *options) printable() error {
	if template, ok := o.template(); ok {
		_, err := parseTemplate(template)
		return err
	}
	if !slices.Contains([]string{"", "json", "yaml", "name"}, o.output) {
		return fmt.Errorf("cannot print %q: want json, yaml, name or jsonpath=TEMPLATE", o.output)
	}
	return nil
}

// template is what follows jsonpath=.
func (o *options) template() (string, bool) { return strings.CutPrefix(o.output, "jsonpath=") }

// scopeOf is the scope for a target; a pod's default is that pod.
func (o *options) scopeOf(pod bool) v1alpha1.Scope {
	if strings.EqualFold(o.scope, "workload") || (o.scope == "" && !pod) {
		return v1alpha1.ScopeWorkload
	}
	return v1alpha1.ScopePod
}

// says is where the progress goes.
func (o *options) says() io.Writer {
	if o.output == "" {
		return o.out
	}
	return o.err
}
