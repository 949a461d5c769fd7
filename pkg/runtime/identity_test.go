package runtime

import (
	"fmt"
	"strings"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestIdentify(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	record := func(change func(*containersapi.Container)) *containersapi.Container {
		r := &containersapi.Container{
			ID: "c1", Image: "web:1", Snapshotter: "overlayfs", SnapshotKey: "k1",
			CreatedAt: timestamppb.New(created),
			Labels: map[string]string{
				labelKind: "container", labelPodNamespace: "shop", labelPodName: "web-0",
				labelPodUID: "u-1", labelContainerName: "app",
			},
			Spec: &anypb.Any{TypeUrl: specType, Value: []byte(`{
				"ociVersion": "1.2.0",
				"mounts": [
					{"destination": "/proc", "type": "proc", "source": "proc"},
					{"destination": "/data", "type": "bind", "source": "/var/lib/kubelet/pods/u-1/volumes/x/", "options": ["rbind", "rw"]},
					{"destination": "/none", "type": "none", "source": "/host", "options": ["bind"]},
					{"destination": "/relative", "type": "bind", "source": "../etc"},
					{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
				],
				"linux": {"cgroupsPath": "/kubepods/podu-1/c1"}
			}`)},
		}
		change(r)
		return r
	}
	base := Container{
		ID: "c1", Namespace: "k8s.io", Name: "app", Image: "web:1", Created: created,
		Pod:    Pod{Namespace: "shop", Name: "web-0", UID: "u-1"},
		Layer:  Layer{Snapshotter: "overlayfs", Key: "k1"},
		Cgroup: "/kubepods/podu-1/c1",
		Mounts: []Mount{{"/data", "/var/lib/kubelet/pods/u-1/volumes/x"}, {"/none", "/host"}},
		Logs:   "/var/log/pods/shop_web-0_u-1/app",
	}
	for _, c := range []struct {
		name      string
		namespace string
		change    func(*containersapi.Container)
		want      func(*Container)
		wantErr   bool
	}{
		{"a pod's container", "k8s.io", func(*containersapi.Container) {}, func(*Container) {}, false},
		{"a pod's sandbox", "k8s.io", func(r *containersapi.Container) {
			r.Labels[labelKind] = kindSandbox
			delete(r.Labels, labelContainerName)
		}, func(c *Container) { c.Sandbox, c.Name, c.Logs = true, "", "" }, false},
		{"an image that claims to be a pod, outside CRI's namespace", "default", func(*containersapi.Container) {},
			func(c *Container) { c.Namespace, c.Name, c.Pod, c.Logs = "default", "", Pod{}, "" }, false},
		{"an image that claims to be a pod, not made by CRI", "k8s.io", func(r *containersapi.Container) { delete(r.Labels, labelKind) },
			func(c *Container) { c.Name, c.Pod, c.Logs = "", Pod{}, "" }, false},
		{"labels longer than any name", "k8s.io", func(r *containersapi.Container) {
			r.Labels[labelPodName] = strings.Repeat("a", 1<<20)
		}, func(c *Container) { c.Pod.Name, c.Logs = "", "" }, false},
		{"ten thousand labels", "k8s.io", func(r *containersapi.Container) {
			for i := range 10_000 {
				r.Labels[fmt.Sprint(i)] = "x"
			}
		}, func(*Container) {}, false},
		{"no spec", "k8s.io", func(r *containersapi.Container) { r.Spec = nil },
			func(c *Container) { c.Cgroup, c.Mounts = "", nil }, false},
		{"an empty spec", "k8s.io", func(r *containersapi.Container) { r.Spec.Value = nil },
			func(c *Container) { c.Cgroup, c.Mounts = "", nil }, false},
		{"a spec that is no JSON", "k8s.io", func(r *containersapi.Container) { r.Spec.Value = []byte("\x00\xff garbage") },
			func(c *Container) { c.Cgroup, c.Mounts = "", nil }, true},
		{"a spec of other types", "k8s.io", func(r *containersapi.Container) { r.Spec.Value = []byte(`{"mounts": 7}`) },
			func(c *Container) { c.Cgroup, c.Mounts = "", nil }, true},
		{"no time of creation", "k8s.io", func(r *containersapi.Container) { r.CreatedAt = nil },
			func(c *Container) { c.Created = time.Time{} }, false},
		{"an impossible time of creation", "k8s.io", func(r *containersapi.Container) {
			r.CreatedAt = &timestamppb.Timestamp{Seconds: 1 << 62}
		}, func(c *Container) { c.Created = time.Time{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := identify(c.namespace, record(c.change))
			if (err != nil) != c.wantErr {
				t.Fatalf("error %v, want one: %t", err, c.wantErr)
			}
			want := base
			c.want(&want)
			if !got.Equal(want) {
				t.Errorf("identify\n got %+v\nwant %+v", got, want)
			}
		})
	}
	t.Run("no record at all", func(t *testing.T) {
		if got, err := identify("k8s.io", nil); err != nil || !got.Equal(Container{Namespace: "k8s.io"}) {
			t.Errorf("identify(nil) = %+v, %v", got, err)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(`{"mounts":[{"destination":"/d","type":"bind","source":"/s","options":["rbind"]}],"linux":{"cgroupsPath":"/x"}}`))
	f.Add([]byte(`{"mounts":[null,{}],"linux":null}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		spec, err := parseSpec(&anypb.Any{Value: value})
		if err != nil {
			return
		}
		for _, m := range spec.binds() {
			if !strings.HasPrefix(m.Source, "/") || strings.Contains(m.Source, "/../") {
				t.Errorf("a bind mount from %q, which is no place on the host", m.Source)
			}
		}
	})
}
