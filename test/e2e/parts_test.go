package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// A pod writes into all that it has: its layer, its log, an emptyDir, a VOLUME
// of its image, and a file that it deletes and holds open. The agent tells of
// each what du, and the kernel, tell on the node. Then it leaks, and the Event on
// the pod names the file, its rate and its size.
func TestAllParts(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 1)
	spec := &web.Spec.Template.Spec
	spec.Volumes = []corev1.Volume{{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cache", MountPath: "/cache"}}
	s.create(web)
	pod := s.untilReady("web", 1)[0]
	for file, bytes := range map[string]string{"/tmp/layer": "3Mi", "-": "200Ki", "/cache/file": "5Mi", "/data/file": "7Mi"} {
		s.must(s.Write(s.ctx, &pod, file, bytes, ""))
	}
	s.must(s.Write(s.ctx, &pod, "/tmp/held", "9Mi", "hold"))

	agent, err := s.AgentPod(s.ctx, pod.Spec.NodeName)
	s.must(err)
	var told, truth map[string]int64
	err = cluster.Until(s.ctx, "the agent's figures are those of the node", func(ctx context.Context) (bool, error) {
		var err error
		if told, err = s.partsTold(ctx, agent, &pod); err != nil {
			return false, err
		}
		truth, err = s.partsThere(ctx, &pod)
		return maps.Equal(told, truth), err
	})
	if err != nil {
		t.Fatalf("told %v, on the node %v: %v", told, truth, err)
	}
	for part, least := range map[string]int64{
		"layer": 3 << 20, "logs": 200 << 10, "emptydir": 5 << 20, "volume": 7 << 20, "deleted": 9 << 20,
		"layer inodes": 3, "logs inodes": 2, "emptydir inodes": 2, "volume inodes": 2, "deleted inodes": 1,
	} {
		if told[part] < least {
			t.Errorf("%s: %d, want %d or more", part, told[part], least)
		}
	}
	s.leak(&pod)
	names := regexp.MustCompile(regexp.QuoteMeta(cluster.LeakFile) + ` in \S+ grew \d\S* \wi?B in \d+ s \(\d\S* \wi?B/s\) to \d\S* \wi?B; `)
	s.must(cluster.Until(s.ctx, "an Event on the pod names the file, its rate and its size", func(ctx context.Context) (bool, error) {
		list := &corev1.EventList{}
		err := s.List(ctx, list, client.InNamespace(s.namespace))
		for _, e := range list.Items {
			if e.InvolvedObject.Name == pod.Name && e.Reason == "DiskFill" && names.MatchString(e.Message) {
				return true, err
			}
		}
		return false, err
	}))
}

// partsTold is what `top` tells of the pod's one container: bytes by part, and
// inodes by "PART inodes".
func (s *story) partsTold(ctx context.Context, agent, pod *corev1.Pod) (map[string]int64, error) {
	out, err := s.Kubectl(ctx, "-n", cluster.Namespace, "exec", agent.Name, "--", "/nodeagent", "top", "-o", "json", "--filter", pod.Name)
	if err != nil {
		return nil, err
	}
	var report struct {
		Containers []struct{ Parts, InodeParts map[string]int64 }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Containers) != 1 {
		return nil, err
	}
	told := report.Containers[0].Parts
	for part, n := range report.Containers[0].InodeParts {
		told[part+" inodes"] = n
	}
	return told, nil
}

// partsThere is what there is, by du where the kubelet and containerd keep it,
// and by the stat of what the container's processes have open.
func (s *story) partsThere(ctx context.Context, pod *corev1.Pod) (map[string]int64, error) {
	now := &corev1.Pod{}
	if err := s.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
		return nil, err
	}
	_, id, _ := strings.Cut(now.Status.ContainerStatuses[0].ContainerID, "://")
	upper, err := s.upperOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	du := func(folder string) string {
		return "for of in -B1 --inodes; do du -s $of " + folder + " | cut -f1; done"
	}
	out := make(map[string]int64)
	for part, script := range map[string]string{
		"layer":    du(upper),
		"logs":     du(fmt.Sprintf("/var/log/pods/%s_%s_%s/app", pod.Namespace, pod.Name, pod.UID)),
		"emptydir": du(fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~empty-dir/cache", pod.UID)),
		"volume":   du("/var/lib/containerd/io.containerd.grpc.v1.cri/containers/" + id + "/volumes/*"),
		"deleted":  `bytes=0; inodes=0; for f in /proc/$(ctr -n k8s.io tasks ls | grep ^` + id + ` | tr -s ' ' | cut -d' ' -f2)/fd/*; do case "$(readlink $f)" in *' (deleted)') bytes=$((bytes + $(stat -L -c '%b*%B' $f))); inodes=$((inodes + 1));; esac; done; echo $bytes $inodes`,
	} {
		text, err := s.Lab(ctx, "exec", pod.Spec.NodeName, "--", "sh", "-c", script)
		if err != nil {
			return nil, err
		}
		bytes, inodes, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(text, "\n", " ")), " ")
		if out[part], err = strconv.ParseInt(bytes, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
		if out[part+" inodes"], err = strconv.ParseInt(inodes, 10, 64); err != nil {
			return nil, fmt.Errorf("inodes of %s: %w", part, err)
		}
	}
	return out, nil
}
