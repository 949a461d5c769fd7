package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Image is the web app's.
	Image      = "nodeagent.dev/webapp:dev"
	webappPort = 8080
)

// LeakFile is the file the web app leaks into.
const LeakFile = "/app/logs/debug.log"

// Namespaced makes a namespace with a generated name.
func (c *Cluster) Namespaced(ctx context.Context, prefix string) (string, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-"}}
	if err := c.Create(ctx, ns); err != nil {
		return "", fmt.Errorf("cannot make a namespace: %w", err)
	}
	return ns.Name, nil
}

// Meta names an object of the web app.
func Meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels(name)}
}

func labels(name string) map[string]string { return map[string]string{"app": name} }

// PodTemplate is the web app's pod. It serves on for five seconds after it was
// told to stop, and says that it is not ready meanwhile.
func PodTemplate(name string) corev1.PodTemplateSpec {
	probe := &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(webappPort)}},
		PeriodSeconds:    1,
		TimeoutSeconds:   5,
		FailureThreshold: 3,
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels(name)},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "app", Image: Image, ImagePullPolicy: corev1.PullNever,
				Args:           []string{"serve"},
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: webappPort}},
				ReadinessProbe: probe,
			}},
			TerminationGracePeriodSeconds: new(int64(30)),
			AutomountServiceAccountToken:  new(false),
		},
	}
}

// Deployment is the web app with three or however many replicas.
func Deployment(namespace, name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: Meta(namespace, name),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels(name)},
			Template: PodTemplate(name),
		},
	}
}

// StatefulSet is the web app as a StatefulSet.
func StatefulSet(namespace, name string, replicas int32) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: Meta(namespace, name),
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: name,
			Selector: &metav1.LabelSelector{MatchLabels: labels(name)},
			Template: PodTemplate(name),
		},
	}
}

// DaemonSet is the web app on every node.
func DaemonSet(namespace, name string) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		ObjectMeta: Meta(namespace, name),
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels(name)},
			Template: PodTemplate(name),
		},
	}
}

// Service selects the web app's pods.
func Service(namespace, name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: Meta(namespace, name),
		Spec: corev1.ServiceSpec{
			Selector: labels(name),
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(webappPort)}},
		},
	}
}

// Client is a pod that never stops asking a Service, which has to exist first:
// some 1,500 times a second, half of them over a new connection each.
func Client(namespace, name string, service *corev1.Service) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"client": service.Name}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "client", Image: Image, ImagePullPolicy: corev1.PullNever,
				Args: []string{"client", "--url", fmt.Sprintf("http://%s/", service.Spec.ClusterIP), "--workers", "4", "--every", "5ms"},
			}},
			// It ends by itself after a while, and then it has ended.
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(1)),
			AutomountServiceAccountToken:  new(false),
		},
	}
}

// Pods returns the web app's pods that were not told to go.
func (c *Cluster) Pods(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := c.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels(labels(name))); err != nil {
		return nil, fmt.Errorf("cannot list pods: %w", err)
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// statusPatience is how long a controller may take to tell of its Ready pods.
const statusPatience = time.Minute

// UntilReady waits for n Ready pods of the web app and returns them. It gives
// the controllers time to count them in the status of their workload, by which
// the agent decides.
func (c *Cluster) UntilReady(ctx context.Context, namespace, name string, n int) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	err := Until(ctx, fmt.Sprintf("%d pods of %s/%s are Ready", n, namespace, name), func(ctx context.Context) (bool, error) {
		var err error
		pods, err = c.Pods(ctx, namespace, name)
		return len(pods) == n && allReady(pods), err
	})
	if err != nil {
		return pods, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	_ = Until(ctx, "they are counted", func(ctx context.Context) (bool, error) { // a controller may be away on purpose
		return c.counted(ctx, client.ObjectKey{Namespace: namespace, Name: name}, n)
	})
	return pods, nil
}

// counted tells whether each workload of that name counts n pods as Ready.
func (c *Cluster) counted(ctx context.Context, key client.ObjectKey, n int) (bool, error) {
	var deployment appsv1.Deployment
	var stateful appsv1.StatefulSet
	var daemon appsv1.DaemonSet
	var replicas appsv1.ReplicaSet
	var controller corev1.ReplicationController
	for _, w := range []struct {
		object client.Object
		count  func() int32
	}{
		{&deployment, func() int32 { return deployment.Status.ReadyReplicas }},
		{&stateful, func() int32 { return stateful.Status.ReadyReplicas }},
		{&daemon, func() int32 { return daemon.Status.NumberReady }},
		{&replicas, func() int32 { return replicas.Status.ReadyReplicas }},
		{&controller, func() int32 { return controller.Status.ReadyReplicas }},
	} {
		err := c.Get(ctx, key, w.object)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil || int(w.count()) != n {
			return false, err
		}
	}
	return true, nil
}

func allReady(pods []corev1.Pod) bool {
	for _, p := range pods {
		if !Ready(&p) {
			return false
		}
	}
	return true
}

// Ready tells whether a pod has the condition Ready.
func Ready(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Leak makes one pod write rate (20Mi) bytes a second into LeakFile.
func (c *Cluster) Leak(ctx context.Context, pod *corev1.Pod, rate string) error {
	return c.tell(ctx, pod, http.MethodPost, "leak", map[string]string{"rate": rate, "file": LeakFile})
}

// Write makes one pod write so many bytes (3Mi) at once: into a file, which it
// deletes and holds open where then is "hold", or to its log where file is "-".
func (c *Cluster) Write(ctx context.Context, pod *corev1.Pod, file, bytes, then string) error {
	return c.tell(ctx, pod, http.MethodPost, "write", map[string]string{"file": file, "bytes": bytes, "then": then})
}

// EndLeak makes it stop.
func (c *Cluster) EndLeak(ctx context.Context, pod *corev1.Pod) error {
	return c.tell(ctx, pod, http.MethodDelete, "leak", nil)
}

// Unready makes one pod say from now on that it is not ready.
func (c *Cluster) Unready(ctx context.Context, pod *corev1.Pod) error {
	return c.tell(ctx, pod, http.MethodPost, "unready", nil)
}

// tell is a request to the web app in a pod, by way of the API server.
func (c *Cluster) tell(ctx context.Context, pod *corev1.Pod, method, path string, params map[string]string) error {
	req := c.Core.CoreV1().RESTClient().Verb(method).
		Namespace(pod.Namespace).Resource("pods").Name(fmt.Sprintf("%s:%d", pod.Name, webappPort)).SubResource("proxy").Suffix(path)
	for name, value := range params {
		req = req.Param(name, value)
	}
	if err := req.Do(ctx).Error(); err != nil {
		return fmt.Errorf("cannot %s %s of %s: %w", method, path, pod.Name, err)
	}
	return nil
}

// Tally is what a client counted over one kind of connection.
type Tally struct {
	Requests int64            `json:"requests"`
	Failures int64            `json:"failures"`
	Pods     map[string]int64 `json:"pods"`
	Errors   map[string]int64 `json:"errors"`
	FailedAt []time.Time      `json:"failedAt"` // the first of them
}

// Tallies asks a client for its counts, "new" and "keepalive".
func (c *Cluster) Tallies(ctx context.Context, namespace, clientPod string) (map[string]Tally, error) {
	raw, err := c.Core.CoreV1().RESTClient().Get().
		Namespace(namespace).Resource("pods").Name(fmt.Sprintf("%s:%d", clientPod, webappPort)).SubResource("proxy").
		Suffix("tally").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the client for its counts: %w", err)
	}
	out := map[string]Tally{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("cannot read the client's counts: %w", err)
	}
	return out, nil
}
