package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/apiserver"
	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/terminal"
)

// desk is where people sit: a cluster with agents on both of its nodes, and
// kubectl with the plugin on the PATH.
type desk struct {
	*apiserver.Cluster
	kubelet *apiserver.Kubelet
	path    string
}

// people are those who sit there: ann has edit in all namespaces, bob the
// right on Restarts alone, eve none.
func TestRestartByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("-short runs the pure tests alone")
	}
	d := &desk{Cluster: apiserver.Start(t, apiserver.Controllers(), "ann", "bob", "eve")}
	d.kubelet = apiserver.StartKubelet(t, d.Cluster, "node-a", "node-b")
	d.InstallAgent(t)
	for user, role := range map[string]string{"ann": "edit", "bob": "nodeagent-restart"} {
		d.Kubectl("create", "clusterrolebinding", user, "--clusterrole="+role, "--user="+user)
	}
	d.agents(t, "node-a", "node-b")
	d.install(t)
	apiserver.Eventually(t, time.Minute, "edit has the right on Restarts", func() bool {
		return d.kubectl(t, "ann", "auth", "can-i", "create", "restarts.nodeagent.dev").code == 0 &&
			d.kubectl(t, "bob", "auth", "can-i", "create", "restarts.nodeagent.dev").code == 0
	})
	stories := map[string]func(*testing.T, *desk, string){
		"workload":      storyHandWorkload,
		"bare-pod":      storyHandBarePod,
		"one-pod":       storyHandOnePod,
		"stalled":       storyHandStalled,
		"rolled-back":   storyHandRolledBack,
		"refused":       storyHandRefused,
		"rehearsed":     storyHandRehearsed,
		"only-restarts": storyHandOnlyRestarts,
		"many":          storyHandMany,
		"wrong":         storyHandWrong,
		"completion":    storyHandCompletion,
		"told":          storyHandTold,
		"terminal":      storyHandInATerminal,
	}
	t.Run("waits", func(t *testing.T) { d.Namespace(t, "waits"); storyHandWaits(t, d, "waits") }) // and all others would
	t.Run("stories", func(t *testing.T) {
		for name, story := range stories {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d.Namespace(t, name)
				story(t, d, name)
			})
		}
	})
}

// agents runs the real controllers of two nodes, with an agent's rights.
func (d *desk) agents(t *testing.T, nodes ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait() })
	for _, node := range nodes {
		log := apiserver.Log(t).With("node", node)
		c, err := restart.NewClient(d.Agent(t, node), log)
		if err != nil {
			t.Fatal(err)
		}
		o := restart.Options{Node: node, ExcludedNamespaces: []string{"kube-system"}}
		controller := restart.NewController(c, o, nil, restart.NewEvents(patient(c), node, time.Now, log), restart.NewMetrics(prometheus.NewRegistry()), log)
		done.Go(func() { _ = controller.Run(ctx) })
	}
}

// patient writes what it is to write however long a busy machine takes: an agent
// gives an Event up after a moment, and here it is looked at.
func patient(c client.WithWatch) client.Client {
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			return c.Create(context.WithoutCancel(ctx), o, options...)
		},
	})
}

// install puts this test binary on the PATH under both names that kubectl
// looks for.
func (d *desk) install(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, name := range []string{"kubectl-restart", "kubectl_complete-restart"} {
		if err := os.Symlink(self, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.path = folder + ":" + os.Getenv("PATH")
}

type ran struct {
	out, err string
	code     int
}

// kubectl runs the real kubectl as one of the people.
func (d *desk) kubectl(t *testing.T, who string, args ...string) ran {
	t.Helper()
	cmd := d.command(t, who, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (d *desk) command(t *testing.T, who string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(d.KubectlBinary(), args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+d.path, "KUBECONFIG="+d.Kubeconfig(who), "HOME="+t.TempDir())
	return cmd
}

// restart is `kubectl restart -n NAMESPACE ARGS`.
func (d *desk) restart(t *testing.T, who, ns string, args ...string) ran {
	t.Helper()
	return d.kubectl(t, who, append([]string{"restart", "-n", ns}, args...)...)
}

func (r ran) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("it does not say %q:\n%s%s", w, r.out, r.err)
		}
	}
}

func (d *desk) deployment(t *testing.T, ns, name string, change func(*appsv1.Deployment)) *appsv1.Deployment {
	t.Helper()
	deployment := apiserver.Deployment(ns, name, 2)
	if change != nil {
		change(deployment)
	}
	d.Create(t, deployment)
	d.Available(t, deployment)
	return deployment
}

func (d *desk) barePod(t *testing.T, ns, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	template := apiserver.Template(name)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: template.Labels}, Spec: template.Spec}
	if change != nil {
		change(pod)
	}
	d.Create(t, pod)
	apiserver.Eventually(t, time.Minute, "pod "+name+" is Ready", func() bool {
		return d.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod) == nil && cluster.Ready(pod)
	})
	return pod
}

// What waits is told while it does: all restarts are paused until that is read.
func storyHandWaits(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	d.Create(t, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: "nodeagent", Name: restart.LeaseSlots, Annotations: map[string]string{v1alpha1.AnnotationPaused: "incident 42"},
	}})
	cmd := d.command(t, "ann", "restart", "-n", ns, "deploy/web")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(3*patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	told, paused := "", true
	for lines := bufio.NewScanner(out); lines.Scan(); told += lines.Text() + "\n" {
		if paused && strings.HasPrefix(lines.Text(), "deployment/web Pending") {
			d.Kubectl("annotate", "lease", "-n", "nodeagent", restart.LeaseSlots, v1alpha1.AnnotationPaused+"-")
			paused = false
		}
	}
	if err := cmd.Wait(); err != nil || paused || !strings.Contains(told, "deployment/web Succeeded: 2 pods replaced") {
		t.Errorf("%v\n%s", err, told)
	}
}

// A whole Deployment, which the leader takes up, by its short name, twice.
func storyHandWorkload(t *testing.T, d *desk, ns string) {
	deployment := d.deployment(t, ns, "web", nil)
	before := podUIDs(d.Pods(t, ns, "web"))
	d.restart(t, "ann", ns, "deploy/web", "-m", "new certificate").want(t, 0, "deployment/web Succeeded: 2 pods replaced")
	for _, uid := range podUIDs(d.Pods(t, ns, "web")) {
		if slices.Contains(before, uid) {
			t.Errorf("pod %s is still there", uid)
		}
	}
	got := d.restart(t, "ann", ns, "deployment", "web", "-o", "json")
	got.want(t, 0)
	var r v1alpha1.Restart
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || r.Status.Phase != v1alpha1.PhaseSucceeded || len(r.Status.History) != 2 || r.Spec.Node != "" {
		t.Errorf("%v: %s", err, got.out)
	}
	generation := deployment.Generation
	if d.Available(t, deployment); deployment.Generation != generation+2 {
		t.Errorf("the template was written %d times", deployment.Generation-generation)
	}
	d.Kubectl("annotate", "-n", ns, "deployment", "web", v1alpha1.AnnotationRestart+"=observe")
	d.Available(t, deployment) // that raises its generation, and what is not observed counts as a rollout
	d.restart(t, "ann", ns, "deploy/web").want(t, 2, "Observed")
}

// `kubectl restart pod/web`, and once more within the cooldown: it is a
// person's.
func storyHandBarePod(t *testing.T, d *desk, ns string) {
	pod := d.barePod(t, ns, "web", nil)
	d.restart(t, "ann", ns, "pod/web", "-m", "it leaks").want(t, 0, "pod/web asked for\n", "pod/web Succeeded: 1 pod replaced")
	pods := d.Pods(t, ns, "web")
	if len(pods) != 1 || pods[0].UID == pod.UID || !strings.HasPrefix(pods[0].Name, "web-") {
		t.Fatalf("pods %v", podNames(pods))
	}
	r := d.Restart(t, ns, "pod-web")
	if r.Spec.Reason != v1alpha1.ReasonManual || r.Spec.Message != "it leaks" || r.Spec.Node != pod.Spec.NodeName {
		t.Errorf("spec %+v", r.Spec)
	}
	copied := pods[0].Name
	d.restart(t, "ann", ns, "po", copied).want(t, 0, "Succeeded")
	d.restart(t, "ann", ns, "pod/"+d.Pods(t, ns, "web")[0].Name, "-o", "yaml").want(t, 0, "phase: Succeeded")
}

// One pod of a Deployment goes, the others stay, and the Deployment is not
// written to. Asked again at once it is done again: cooldowns are for agents.
func storyHandOnePod(t *testing.T, d *desk, ns string) {
	deployment := d.deployment(t, ns, "web", nil)
	for range 2 {
		before := d.Pods(t, ns, "web")
		d.restart(t, "ann", ns, "pod/"+before[0].Name).want(t, 0, "pod/"+before[0].Name+" of deployment/web", "Succeeded")
		after := podUIDs(d.Pods(t, ns, "web"))
		if slices.Contains(after, string(before[0].UID)) || !slices.Contains(after, string(before[1].UID)) || len(after) != 2 {
			t.Errorf("pods before %v, after %v", podUIDs(before), after)
		}
	}
	generation := deployment.Generation
	d.Available(t, deployment)
	if deployment.Generation != generation {
		t.Error("the Deployment was written to")
	}
	if r := d.Restart(t, ns, "deployment-web"); len(r.Status.History) != 2 || len(r.OwnerReferences) != 1 || r.OwnerReferences[0].UID != deployment.UID {
		t.Errorf("history %+v, owners %+v", r.Status.History, r.OwnerReferences)
	}
}

func storyHandStalled(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	pod := d.Pods(t, ns, "web")[0]
	d.kubelet.Hold(ns, true)
	// Longer than it waits for it the restart goes on, and is joined.
	d.restart(t, "ann", ns, "pod/"+pod.Name, "--deadline=30s", "--timeout=2s").want(t, 4, "The restart goes on", "1 of 1 restarts not ended yet")
	d.restart(t, "ann", ns, "pod/"+pod.Name).want(t, 3, "is being restarted already (Manual", "Stalled: Not complete after 30s", "1 of 1 restarts stalled or failed")
	// Deleted by somebody meanwhile.
	cmd := make(chan ran)
	d.kubelet.Hold(ns, true)
	go func() { cmd <- d.restart(t, "ann", ns, "pod/"+pod.Name) }()
	apiserver.Eventually(t, 60*time.Second, "the restart runs", func() bool {
		r := d.Restart(t, ns, "deployment-web")
		return r != nil && r.Status.Phase == v1alpha1.PhaseRunning
	})
	d.Kubectl("delete", "-n", ns, "restart", "deployment-web")
	(<-cmd).want(t, 3, "its Restart was deleted")
}

func storyHandRolledBack(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	d.kubelet.Hold(ns, true)
	d.restart(t, "ann", ns, "deploy/web", "--deadline=20s", "--on-stall=rollback").want(t, 3, "Stalled: Not complete after 20s", "It was rolled back")
	if r := d.Restart(t, ns, "deployment-web"); r.Spec.OnStall != v1alpha1.OnStallRollback {
		t.Errorf("spec %+v", r.Spec)
	}
}

// What the agent refuses exits with 2, and so does the plan of it.
func storyHandRefused(t *testing.T, d *desk, ns string) {
	d.barePod(t, ns, "once", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	d.restart(t, "ann", ns, "pod/once", "--dry-run").want(t, 2, "pod/once would be refused: The pod's restartPolicy is Never", "1 of 1 restarts would be refused")
	if d.Restart(t, ns, "pod-once") != nil {
		t.Fatal("--dry-run wrote a Restart")
	}
	d.restart(t, "ann", ns, "pod/once").want(t, 2, "Refused: The pod's restartPolicy is Never", "1 of 1 restarts refused")
}

// The plan tells method, pods and what speaks against it, for each kind.
func storyHandRehearsed(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	d.restart(t, "ann", ns, "deploy/web", "--dry-run").want(t, 0, "deployment/web would be restarted: its 2 pods are replaced by their own controller", "  pod/web-")
	d.restart(t, "ann", ns, "deploy", "web", "--dry-run=server", "-o", "name").want(t, 0, "restart.nodeagent.dev/deployment-web\n")
	if got := d.restart(t, "ann", ns, "deploy/web", "--dry-run", "-o", `jsonpath={.kind} {.spec.target.name}{.spec.pod}{"\n"}`); got.out != "Restart web\n" {
		t.Errorf("jsonpath prints %q (%s)", got.out, got.err)
	}
	d.restart(t, "ann", ns, "deployments.v1.apps/web", "--dry-run").want(t, 0, "would be restarted")
	d.contexts(t, ns)
	one := d.Pods(t, ns, "web")[0].Name
	d.restart(t, "ann", ns, "pod/"+one, "--dry-run").want(t, 0, "pod/"+one+" of deployment/web would be restarted: 1 pod is released")
	d.restart(t, "ann", ns, "pod/"+one, "--scope=workload", "--dry-run").want(t, 0, "deployment/web would be restarted: its 2 pods are")
	d.deployment(t, ns, "old", func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType })
	d.restart(t, "ann", ns, "deploy/old", "--dry-run").want(t, 2, "deployment/old would be refused: The Deployment's strategy is Recreate")
	d.restart(t, "ann", ns, "deploy/old", "--dry-run", "--allow-downtime").want(t, 0, "note: The Deployment's strategy is Recreate")
	if list := d.Kubectl("get", "-n", ns, "restarts", "-o", "name"); list != "" {
		t.Errorf("--dry-run wrote %s", list)
	}
}

// contexts has a kubeconfig with two of them: which cluster, who and where is
// the current one's, or that of --context.
func (d *desk) contexts(t *testing.T, ns string) {
	t.Helper()
	text, err := os.ReadFile(d.Kubeconfig("eve"))
	if err != nil {
		t.Fatal(err)
	}
	file := "--kubeconfig=" + d.Write("kubeconfig-"+ns, text)
	d.kubectl(t, "eve", "config", file, "set-credentials", "ann", "--token=ann").want(t, 0)
	d.kubectl(t, "eve", "config", file, "set-context", "anns", "--cluster=c", "--user=ann", "--namespace="+ns).want(t, 0)
	d.kubectl(t, "eve", "restart", "deploy/web", file, "--namespace="+ns).want(t, 1, "forbidden")
	d.kubectl(t, "eve", "restart", "deploy/web", "--dry-run", file, "--context=anns").want(t, 0, "deployment/web would be restarted")
}

// bob may do nothing but write Restarts, and that is enough. eve may not.
func storyHandOnlyRestarts(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	pod := d.barePod(t, ns, "single", nil)
	d.restart(t, "bob", ns, "deploy/web", "--wait=false").want(t, 0, "deployment/web: asked for by restart.nodeagent.dev/deployment-web\n")
	if r := d.Restart(t, ns, "deployment-web"); r.Spec.Node != "" || r.Spec.Scope != v1alpha1.ScopeWorkload || len(r.OwnerReferences) != 0 {
		t.Errorf("%+v", r)
	}
	got := d.restart(t, "bob", ns, "pod/single", "--wait=false", "-o", "json")
	var r v1alpha1.Restart
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || r.Kind != "Restart" || r.Spec.Target.Name != "single" || r.UID == "" {
		t.Errorf("%v: %s", err, got.out)
	}
	d.restart(t, "eve", ns, "deploy/web").want(t, 1, "forbidden")
	d.restart(t, "bob", ns, "deploy", "--all").want(t, 1, "forbidden")
	apiserver.Eventually(t, time.Minute, "both are restarted", func() bool {
		return d.Restart(t, ns, "deployment-web").Status.Phase == v1alpha1.PhaseSucceeded && d.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), pod) != nil
	})
}

func storyHandMany(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	d.deployment(t, ns, "shop", nil)
	d.restart(t, "ann", ns, "deploy", "-l", "app in (web)", "--wait=false", "-o", "name").want(t, 0, "restart.nodeagent.dev/deployment-web\n")
	got := d.restart(t, "ann", ns, "deploy,sts", "--all", "--wait=false", "-o", "yaml")
	var list v1alpha1.RestartList
	if err := yaml.Unmarshal([]byte(got.out), &list); err != nil || len(list.Items) != 2 {
		t.Errorf("%v: %s", err, got.out)
	}
	d.barePod(t, ns, "one", nil)
	d.barePod(t, ns, "never", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	d.restart(t, "ann", ns, "pod/one", "pod/never", "--timeout=2m").want(t, 2, "pod/one Succeeded", "pod/never Refused", "1 of 2 restarts refused")
	d.deployment(t, ns, "twins", nil) // web's pods are just being replaced
	pods := d.Pods(t, ns, "twins")
	d.restart(t, "ann", ns, "pod/"+pods[0].Name, "pod/"+pods[1].Name, "--dry-run").want(t, 1, "belong to the same Deployment")
}

func storyHandWrong(t *testing.T, d *desk, ns string) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{nil, "say what to restart"},
		{[]string{"deploy"}, "say which deploy: deploy/NAME, or --all, or -l LABELS"},
		{[]string{"deploy/nothere"}, `deployments.apps "nothere" not found`},
		{[]string{"pod/nothere"}, `pods "nothere" not found`},
		{[]string{"deplyo/web"}, `the API server has no kind "deplyo"`},
		{[]string{"node/node-a"}, "a Node is in no namespace"},
		{[]string{"deploy/web", "sts"}, "all have to be KIND/NAME"},
		{[]string{"deploy/web", "--all"}, "not both"},
		{[]string{"deploy/web", "--scope=pod"}, "scope pod wants a pod"},
		{[]string{"deploy/web", "--on-stall=undo"}, "cannot use --on-stall=undo: want leave or rollback"},
		{[]string{"deploy/web", "-o", "wide"}, "want json, yaml, name or jsonpath=TEMPLATE"},
		{[]string{"deploy/web", "-o", "jsonpath={.spec"}, "cannot use the template"},
		{[]string{"deploy", "-l", "a in"}, "cannot read the selector"},
		{[]string{"sts", "--all"}, "nothing found in namespace " + ns},
		{[]string{"deploy/web", "--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"deploy/web", "--context", "other"}, `context "other" does not exist`},
	} {
		got := d.restart(t, "ann", ns, tt.args...)
		got.want(t, 1, tt.says)
		if strings.Count(got.err, "\n") != 1 || !strings.HasPrefix(got.err, "kubectl restart: ") {
			t.Errorf("%v: not one line: %q", tt.args, got.err)
		}
	}
}

func storyHandCompletion(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	d.kubectl(t, "ann", "__complete", "restart", "-n", ns, "depl").want(t, 0, "deployment/\n", ":6\n")
	// A busy machine may take longer than a person waits for a hint.
	d.kubectl(t, "ann", "__complete", "restart", "-n", ns, "--request-timeout=1m", "deploy/w").want(t, 0, "deploy/web\n", ":4\n")
	d.kubectl(t, "ann", "__complete", "restart", "-n", ns, "--request-timeout=1m", "deploy", "").want(t, 0, "web\n")
	d.kubectl(t, "ann", "__complete", "restart", "-n", ns, "deploy", "web", "--scope", "w").want(t, 0, "workload\n")
	d.kubectl(t, "ann", "__complete", "restart", "-n", ns, "deploy", "web", "--on-stall", "r").want(t, 0, "rollback\n")
}

// In a terminal one line is drawn anew: a wheel and an empty bar while it runs, a
// full one and a tick at its end, which stay.
func storyHandInATerminal(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	pod := d.Pods(t, ns, "web")[0].Name
	d.kubelet.Hold(ns, true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	term, err := terminal.Start(d.command(t, "ann", "restart", "-n", ns, "pod/"+pod), 130, 24)
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, so func(string) bool) {
		t.Helper()
		if err := term.Until(ctx, what, so); err != nil {
			t.Error(err)
		}
	}
	until("the wheel turns beside an empty bar", func(screen string) bool {
		return strings.ContainsAny(screen, "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏") && strings.Contains(screen, "pod/"+pod+" of deployment/web [          ] 0/1") && strings.Contains(screen, "Running: ")
	})
	d.kubelet.Hold(ns, false)
	until("a tick stands beside a full bar, in the one line", func(screen string) bool {
		return strings.Contains(screen, "✓ pod/"+pod+" of deployment/web [██████████] 1/1") && strings.Contains(screen, "Succeeded: 1 pod replaced") &&
			strings.Count(screen, "pod/"+pod) == 1
	})
	if err := term.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// What kubectl shows of it: a person at 3 a.m. reads that.
func storyHandTold(t *testing.T, d *desk, ns string) {
	d.deployment(t, ns, "web", nil)
	pod := d.Pods(t, ns, "web")[0]
	d.restart(t, "ann", ns, "pod/"+pod.Name, "-m", "it leaks").want(t, 0, "Succeeded")
	table := d.Kubectl("get", "-n", ns, "restarts")
	wide := d.Kubectl("get", "-n", ns, "restarts", "-o", "wide")
	t.Logf("\n%s\n%s", table, wide)
	for _, word := range []string{"NAME", "REASON", "PHASE", "ASKED", "deployment-web", "Manual", "Succeeded", "1 pod replaced"} {
		if !strings.Contains(table, word) {
			t.Errorf("kubectl get restarts does not say %q:\n%s", word, table)
		}
	}
	if !strings.Contains(wide, "it leaks") || !strings.Contains(wide, pod.Name) {
		t.Errorf("kubectl get restarts -o wide tells neither why nor the pod:\n%s", wide)
	}
	for _, on := range []string{"deployment/web", "restart/deployment-web"} {
		events := ""
		apiserver.Eventually(t, time.Minute, "its end is told on "+on, func() bool { // after it is written
			_, events, _ = strings.Cut(d.Kubectl("describe", "-n", ns, on), "Events:")
			return strings.Contains(events, "RestartSucceeded")
		})
		t.Logf("%s%s", on, events)
		for _, word := range []string{"RestartStarted", "it leaks", "RestartSucceeded", "1 pod replaced"} {
			if !strings.Contains(events, word) {
				t.Errorf("kubectl describe %s does not say %q", on, word)
			}
		}
	}
}

func podNames(pods []corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}

func podUIDs(pods []corev1.Pod) []string {
	var uids []string
	for _, p := range pods {
		uids = append(uids, string(p.UID))
	}
	return uids
}
