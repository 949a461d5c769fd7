package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// named is one thing as the arguments name it: a kind, and a name unless all
// or a selector's are meant.
type named struct{ kind, name string }

// parse reads KIND/NAME..., KIND NAME... and KIND[,KIND].
func parse(args []string, many bool) ([]named, error) {
	slashes := slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "/") })
	if slashes {
		return parsePairs(args, many)
	}
	var all []named
	for kind := range strings.SplitSeq(args[0], ",") {
		switch {
		case kind == "":
			return nil, fmt.Errorf("cannot read %q: a kind is missing", args[0])
		case many && len(args) == 1:
			all = append(all, named{kind: kind})
		case many:
			return nil, errors.New("name the workloads, or select them by --all or -l, not both")
		case len(args) == 1:
			return nil, fmt.Errorf("say which %s: %s/NAME, or --all, or -l LABELS", kind, kind)
		}
		for _, name := range args[1:] {
			all = append(all, named{kind, name})
		}
	}
	return all, nil
}

func parsePairs(args []string, many bool) ([]named, error) {
	var all []named
	for _, arg := range args {
		kind, name, ok := strings.Cut(arg, "/")
		if !ok || kind == "" || name == "" || strings.ContainsAny(name, "/,") {
			return nil, fmt.Errorf("cannot read %q: with a slash in one argument all have to be KIND/NAME", arg)
		}
		all = append(all, named{kind, name})
	}
	if many {
		return nil, errors.New("name the workloads, or select them by --all or -l, not both")
	}
	return all, nil
}

// kindFor asks the API server what a kind's name stands for: deploy, sts,
// rollouts.argoproj.io, deployments.v1.apps.
func kindFor(mapper meta.RESTMapper, arg string) (*meta.RESTMapping, error) {
	versioned, group := schema.ParseResourceArg(strings.ToLower(arg))
	var gvk schema.GroupVersionKind
	err := errors.New("no version")
	if versioned != nil {
		gvk, err = mapper.KindFor(*versioned)
	}
	if err != nil {
		gvk, err = mapper.KindFor(group.WithVersion(""))
	}
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("the API server has no kind %q", arg)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask the API server for its kinds: %w", err)
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the API server for kind %q: %w", arg, err)
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return nil, fmt.Errorf("a %s is in no namespace: it is no workload", gvk.Kind)
	}
	return mapping, nil
}

// wishes finds out what the arguments mean, each workload once.
func (p *person) wishes(ctx context.Context, o *options, args []string) ([]restart.Wish, error) {
	parsed, err := parse(args, o.all || o.selector != "")
	if err != nil {
		return nil, err
	}
	var all []restart.Wish
	for _, n := range parsed {
		mapping, err := kindFor(p.mapper, n.kind)
		if err != nil {
			return nil, err
		}
		found := []string{n.name}
		if n.name == "" {
			if found, err = p.list(ctx, mapping.GroupVersionKind, o.selector); err != nil {
				return nil, err
			}
		}
		for _, name := range found {
			w, err := p.wish(ctx, o, mapping.GroupVersionKind, name)
			if err != nil {
				return nil, err
			}
			same := func(other restart.Wish) bool { return other.Target == w.Target }
			switch i := slices.IndexFunc(all, same); {
			case i < 0:
				all = append(all, w)
			case w.Scope == v1alpha1.ScopePod && all[i].Pod != w.Pod:
				return nil, fmt.Errorf("%s and %s belong to the same %s, which has one restart at a time: use --scope=workload, or one after the other",
					all[i].Pod, w.Pod, w.Target.Kind)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nothing found in namespace %s", p.namespace)
	}
	return all, nil
}

// list gives the names of a kind's objects, without reading more of them.
func (p *person) list(ctx context.Context, gvk schema.GroupVersionKind, selector string) ([]string, error) {
	within := []client.ListOption{client.InNamespace(p.namespace)}
	if selector != "" {
		parsed, err := labels.Parse(selector)
		if err != nil {
			return nil, fmt.Errorf("cannot read the selector %q: %w", selector, err)
		}
		within = append(within, client.MatchingLabelsSelector{Selector: parsed})
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err := p.client.List(ctx, list, within...); err != nil {
		return nil, fmt.Errorf("cannot list what to restart: %w", err)
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names, nil
}

// wish is a restart of one object. What a person may not read is left to the
// agent to find out.
func (p *person) wish(ctx context.Context, o *options, gvk schema.GroupVersionKind, name string) (restart.Wish, error) {
	w := restart.Wish{
		Namespace: p.namespace, Reason: v1alpha1.ReasonManual, Message: o.message,
		AllowDowntime: o.allowDowntime, Deadline: o.deadline, OnStall: v1alpha1.OnStall(o.onStall), Scope: o.scopeOf(false),
		Target: v1alpha1.TargetReference{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Name: name},
	}
	if w.Message == "" {
		w.Message = "A person asked for it."
	}
	key := client.ObjectKey{Namespace: p.namespace, Name: name}
	if gvk == corev1.SchemeGroupVersion.WithKind("Pod") {
		return p.wishPod(ctx, o, w, key)
	}
	if w.Scope == v1alpha1.ScopePod {
		return w, fmt.Errorf("scope pod wants a pod: pod/NAME, not %s/%s", strings.ToLower(gvk.Kind), name)
	}
	target := &metav1.PartialObjectMetadata{}
	target.SetGroupVersionKind(gvk)
	err := p.client.Get(ctx, key, target)
	if err != nil && !apierrors.IsForbidden(err) {
		return w, fmt.Errorf("cannot restart it: %w", err)
	}
	w.TargetUID = string(target.UID)
	return w, nil
}

func (p *person) wishPod(ctx context.Context, o *options, w restart.Wish, key client.ObjectKey) (restart.Wish, error) {
	pod := &corev1.Pod{}
	err := p.client.Get(ctx, key, pod)
	if apierrors.IsForbidden(err) {
		w.Scope = v1alpha1.ScopeWorkload // of the pod itself; the agent says whose it is
		return w, nil
	}
	if err != nil {
		return w, fmt.Errorf("cannot restart it: %w", err)
	}
	if uid := restart.TakenBy(pod); uid != "" {
		return p.wishOf(ctx, w, uid)
	}
	if w.Target, w.TargetUID, err = restart.OwnerOf(ctx, p.client, pod); err != nil {
		return w, fmt.Errorf("cannot find out whose pod %s is: %w", pod.Name, err)
	}
	w.Node = pod.Spec.NodeName // its agent knows best what the pod wrote
	w.Scope = o.scopeOf(w.Target.Kind != restart.KindPod)
	switch {
	case w.Scope == v1alpha1.ScopePod && w.Target.Kind != restart.KindPod:
		w.Pod, w.PodUID = pod.Name, string(pod.UID)
	case w.Target.Kind == restart.KindPod:
		w.Scope = v1alpha1.ScopeWorkload
	default:
		w.Node = ""
	}
	return w, nil
}

// wishOf is for a pod that a restart has in hand: the same as that restart's.
func (p *person) wishOf(ctx context.Context, w restart.Wish, uid string) (restart.Wish, error) {
	list := &v1alpha1.RestartList{}
	if err := p.client.List(ctx, list, client.InNamespace(w.Namespace)); err != nil {
		return w, fmt.Errorf("cannot find out which restart has pod %s in hand: %w", w.Target.Name, err)
	}
	for i := range list.Items {
		if r := &list.Items[i]; string(r.UID) == uid {
			w.Target, w.Scope, w.Pod, w.PodUID, w.Node = r.Spec.Target, r.Spec.Scope, r.Spec.Pod, r.Spec.PodUID, r.Spec.Node
			return w, nil
		}
	}
	return w, fmt.Errorf("pod %s was taken from its owner by a Restart that is gone: see its annotation %s", w.Target.Name, v1alpha1.AnnotationLabelsTaken)
}
