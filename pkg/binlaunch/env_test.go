package binlaunch

import (
	"maps"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// A task is told what Mesos and Marathon told it, and nothing of the agent's
// environment.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	cpu, memory := resource.MustParse("250m"), resource.MustParse("64Mi")
	b := &v1alpha1.Binary{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: v1alpha1.BinarySpec{
		Fetch: []v1alpha1.Artifact{{URL: "https://example.org/web"}},
		Ports: []v1alpha1.Port{{Name: "http", Port: 8080}, {Name: "admin-x"}},
		Env: []v1alpha1.EnvVar{
			{Name: "ADDRESS", Value: "$(HOST):$(PORT_ADMIN_X)"}, {Name: "PRICE", Value: "$$(PORT0) and $(UNKNOWN)"}, {Name: "MARATHON_APP_ID", Value: "/mine"},
		},
		Resources: v1alpha1.Resources{CPU: &cpu, Memory: &memory},
	}}
	b.Spec = *b.Spec.Defaulted()
	got := environment("web.abc", "192.0.2.7", b, []int32{8080, 31005})
	want := map[string]string{
		"HOST": "192.0.2.7", "PORT": "8080", "PORTS": "8080,31005", "PORT0": "8080", "PORT1": "31005", "PORT_HTTP": "8080", "PORT_ADMIN_X": "31005",
		"MESOS_TASK_ID": "web.abc", "MARATHON_APP_ID": "/mine",
		"MARATHON_APP_RESOURCE_CPUS": "0.25", "MARATHON_APP_RESOURCE_MEM": "64", "MARATHON_APP_RESOURCE_DISK": "256",
		"ADDRESS": "192.0.2.7:31005", "PRICE": "$(PORT0) and $(UNKNOWN)",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if c := command([]string{"./web", "--listen=:$(PORT0)", "$$HOME", "$(ADDRESS)"}, got); !slices.Equal(c, []string{"./web", "--listen=:8080", "$HOME", "192.0.2.7:31005"}) {
		t.Errorf("command %q", c)
	}
}
