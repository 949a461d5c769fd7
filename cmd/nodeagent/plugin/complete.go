package plugin

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

// hints bounds what a press of the tab key may take, where no --request-timeout is
// given.
const hints = 3 * time.Second

// hinting is a context for what a press of the tab key asks.
func (o *options) hinting(ctx context.Context) (context.Context, context.CancelFunc) {
	within, err := clientcmd.ParseTimeout(o.overrides.Timeout)
	if err != nil || within <= 0 {
		within = hints
	}
	return context.WithTimeout(ctx, within)
}

// kinds are those that are offered.
func kinds() []string {
	all := []string{"deployment", "statefulset", "daemonset", "pod", "replicaset", "replicationcontroller"}
	for _, k := range restart.OtherKinds() {
		all = append(all, strings.ToLower(k.Kind)+"."+k.Group)
	}
	return all
}

// complete tells the shell what may follow. Where the API server cannot be
// asked it offers less.
func (o *options) complete(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if kind, begun, ok := strings.Cut(word, "/"); ok {
			return o.names(cmd.Context(), kind, begun, kind+"/"), cobra.ShellCompDirectiveNoFileComp
		}
		if len(args) > 0 && !strings.Contains(args[0], "/") {
			return o.names(cmd.Context(), args[0], word, ""), cobra.ShellCompDirectiveNoFileComp
		}
		var offered []string
		for _, k := range kinds() {
			if strings.HasPrefix(k, word) {
				offered = append(offered, k+"/")
			}
		}
		return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, offer := range map[string]cobra.CompletionFunc{
		"output":   fixed("json", "yaml", "name", "jsonpath="),
		"scope":    fixed("pod", "workload"),
		"on-stall": fixed("leave", "rollback"),
		"dry-run":  fixed("client", "server", "none"),
		"context":  o.contexts,
		"namespace": func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return o.namespaces(cmd.Context(), word), cobra.ShellCompDirectiveNoFileComp
		},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, offer) // fails only for a flag that is not there
	}
}

func (o *options) contexts(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	var offered []string
	if config, err := o.rules.Load(); err == nil {
		for name := range config.Contexts {
			if strings.HasPrefix(name, word) {
				offered = append(offered, name)
			}
		}
	}
	return offered, cobra.ShellCompDirectiveNoFileComp
}

func (o *options) names(ctx context.Context, kind, begun, prefix string) []string {
	ctx, cancel := o.hinting(ctx)
	defer cancel()
	o.err = io.Discard
	p, err := o.connect()
	if err != nil {
		return nil
	}
	mapping, err := kindFor(p.mapper, kind)
	if err != nil {
		return nil
	}
	all, err := p.list(ctx, mapping.GroupVersionKind, "")
	if err != nil {
		return nil
	}
	return matching(all, begun, prefix)
}

func (o *options) namespaces(ctx context.Context, begun string) []string {
	ctx, cancel := o.hinting(ctx)
	defer cancel()
	o.err = io.Discard
	p, err := o.connect()
	if err != nil {
		return nil
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := p.client.List(ctx, list, &client.ListOptions{}); err != nil {
		return nil
	}
	var all []string
	for i := range list.Items {
		all = append(all, list.Items[i].Name)
	}
	return matching(all, begun, "")
}

func matching(all []string, begun, prefix string) []string {
	var offered []string
	for _, name := range all {
		if strings.HasPrefix(name, begun) {
			offered = append(offered, prefix+name)
		}
	}
	return offered
}
