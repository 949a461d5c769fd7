package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// New makes the command: a subcommand of nodeagent, or all of kubectl-restart.
func New() *cobra.Command {
	o := newOptions()
	cmd := &cobra.Command{
		Use:   "restart (KIND/NAME... | KIND NAME... | KIND (--all | -l LABELS))",
		Short: "Restart a workload or a single pod, new before old, and follow it",
		Long: "Restart a workload or a single pod, new before old, and follow it to its end.\n" +
			"deploy/web, sts/db, ds/logs, pod/web-1, rollouts.argoproj.io/shop. A pod with an owner is replaced\n" +
			"alone; --scope=workload replaces all of its owner's. It makes a Restart, which the agents carry out:\n" +
			"what they refuse is refused here too. As kubectl-restart on the PATH it is `kubectl restart`, and with\n" +
			"a second link named kubectl_complete-restart kubectl completes its arguments",
		Example: "  kubectl restart pod/web-7c9f\n  kubectl restart deploy/checkout -n shop -m 'new certificate' --timeout=5m\n" +
			"  kubectl restart sts -l tier=cache --dry-run",
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in, o.out, o.err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	o.addFlags(cmd.Flags())
	o.complete(cmd)
	return cmd
}

// asking bounds the requests before anything is followed.
const asking = 30 * time.Second

func (o *options) run(ctx context.Context, args []string) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	p, err := o.connect()
	if err != nil {
		return err
	}
	brief, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	wishes, err := p.wishes(brief, o, args)
	if err != nil {
		return err
	}
	if o.dryRun != "none" {
		return p.rehearse(brief, o, wishes)
	}
	states, err := p.ask(brief, o, wishes)
	if len(states) > 0 && o.wait {
		// What was asked for before one could not be is followed all the same.
		err = errors.Join(err, p.follow(ctx, o, states))
	}
	return errors.Join(err, o.print(states))
}

// ask makes the Restarts, as far as it gets.
func (p *person) ask(ctx context.Context, o *options, wishes []restart.Wish) ([]state, error) {
	var states []state
	for _, w := range wishes {
		r, kind, err := restart.Ask(ctx, p.client, w, time.Now())
		if err != nil {
			return states, err
		}
		s := newState(w, r)
		states = append(states, s)
		switch kind {
		case restart.Joined:
			fmt.Fprintf(o.says(), "%s is being restarted already (%s, asked for at %s): %s\n",
				s.name, r.Spec.Reason, r.Spec.RequestedAt.UTC().Format(time.RFC3339), r.Spec.Message)
		default:
			if !o.wait && o.output == "" {
				fmt.Fprintf(o.out, "%s: asked for by restart.nodeagent.dev/%s\n", s.name, r.Name)
			}
		}
	}
	return states, nil
}

// rehearse shows what would happen. Of the refusals it knows those that stand
// in the API; with server the fences of the API server say theirs.
func (p *person) rehearse(ctx context.Context, o *options, wishes []restart.Wish) error {
	refused := 0
	var states []state
	for _, w := range wishes {
		now := time.Now()
		r := w.Restart(now)
		if o.dryRun == "server" {
			var err error
			if r, _, err = restart.Ask(ctx, client.NewDryRunClient(p.client), w, now); err != nil {
				return err
			}
		}
		plan, err := restart.PlanOf(ctx, p.client, r, restart.Options{Node: w.Node})
		if err != nil {
			return err
		}
		if plan.Refusal != "" {
			refused++
		}
		states = append(states, newState(w, r))
		showPlan(o.says(), nameOf(w), r.Spec.Scope, plan)
	}
	if err := o.print(states); err != nil {
		return err
	}
	if refused > 0 {
		return &Ended{ExitRefused, fmt.Sprintf("%d of %d restarts would be refused", refused, len(wishes))}
	}
	return nil
}

// methods says a method in words.
func methods(m v1alpha1.Method) string {
	switch m {
	case v1alpha1.MethodEvict:
		return "evicted one by one, each next one Ready before the following goes"
	case v1alpha1.MethodRelease:
		return "released one by one: a new one is Ready before the old one leaves the Services and goes"
	case v1alpha1.MethodCopy:
		return "copied: the copy serves before the old one goes"
	}
	return "replaced by their own controller, as after kubectl rollout restart"
}
