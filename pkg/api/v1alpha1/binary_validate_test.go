package v1alpha1

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is wrong is told in the same order each time, though much of it lies in
// maps.
func TestValidateKeepsOneOrder(t *testing.T) {
	none, odd, zero := resource.MustParse("0"), &metav1.Duration{Duration: -time.Second}, int64(0)
	digests := map[string]Digest{"Arm": "x", "amd64": "y", "riscv64": "z"}
	b := &Binary{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: BinarySpec{
		Fetch: []Artifact{{URL: "https://example.org/web", SHA256: digests, SHA512: digests}},
		Ports: []Port{{Name: "http"}},
		Resources: Resources{CPU: &none, Memory: &none, Disk: &none, IO: []IOLimit{{
			Device: "/dev/sda", ReadBytesPerSecond: &none, WriteBytesPerSecond: &none, ReadOperationsPerSecond: &zero, WriteOperationsPerSecond: &zero,
		}}},
		Health: &HealthCheck{Probe: Probe{HTTP: &HTTPProbe{}}, Delay: odd, GracePeriod: odd},
		Update: Update{Deadline: odd},
	}}
	first := b.Validate()
	for _, field := range []string{"cpu", "memory", "disk", "readBytesPerSecond", "writeOperationsPerSecond", "delay", "gracePeriod", "deadline"} {
		if !strings.Contains(first.ToAggregate().Error(), field) {
			t.Errorf("nothing is told of %s: %v", field, first)
		}
	}
	for range 50 {
		if again := b.Validate(); again.ToAggregate().Error() != first.ToAggregate().Error() {
			t.Fatalf("told %v\nand then %v", first, again)
		}
	}
}
