package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// startAlertmanager starts Debian's, and gives its address.
func startAlertmanager(t *testing.T) string {
	t.Helper()
	binary := os.Getenv("NODEAGENT_TEST_ALERTMANAGER")
	if binary == "" {
		t.Fatal("NODEAGENT_TEST_ALERTMANAGER is not set: it is the path of prometheus-alertmanager. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	folder := t.TempDir()
	config := filepath.Join(folder, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", freeport.From(t, 10000))
	// Debian's looks for its templates where its package would be installed. It
	// gets to see them there, alone.
	share := filepath.Join(filepath.Dir(filepath.Dir(binary)), "share")
	script := `mount --make-rprivate / && mount -t overlay templates -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"`
	cmd := exec.Command("sh", "-c", script, share, binary,
		"--config.file="+config, "--storage.path="+folder, "--web.listen-address="+address, "--cluster.listen-address=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	apiserver.Eventually(t, time.Minute, "Alertmanager is ready", func() bool {
		response, err := http.Get("http://" + address + "/-/ready")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return "http://" + address
}

// firing are the alerts about a namespace that Alertmanager holds as active,
// as its own API tells: name → when it ends.
func firing(t *testing.T, at, ns string) map[string]time.Time {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, at+`/api/v2/alerts?active=true&filter=namespace%3D"`+ns+`"`, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var all []struct {
		Labels, Annotations map[string]string
		EndsAt              time.Time
	}
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	found := map[string]time.Time{}
	for _, a := range all {
		found[a.Labels["alertname"]] = a.EndsAt
		if a.Annotations["summary"] == "" || a.Labels["workload"] != "checkout" {
			t.Errorf("%+v", a)
		}
	}
	return found
}

// A restart fires while it is on its way. One that ends badly turns into an
// alert that calls for a person, until the workload is restarted well.
func storyAlertmanager(t *testing.T, s *stage, ns string) {
	at := startAlertmanager(t)
	s.notifier(t, ns, v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: "am", Kind: v1alpha1.ReceiverAlertmanager, URL: at}}})
	r := s.ask(t, ns, "checkout")
	s.untilTold(t, r, "am", v1alpha1.NotifySeen)
	if got := firing(t, at, ns); len(got) != 1 || time.Until(got[alertRestart]) < 3*time.Minute {
		t.Errorf("while it is asked for: %v", got)
	}
	s.goes(t, r, v1alpha1.PhaseRunning, "1 of 3 pods are new.")
	s.untilTold(t, r, "am", v1alpha1.NotifyRestarting)
	s.goes(t, r, v1alpha1.PhaseStalled, "Not complete after 10m.")
	s.untilTold(t, r, "am", v1alpha1.NotifyFailed)
	if got := firing(t, at, ns); len(got) != 1 || got[alertPerson].IsZero() {
		t.Errorf("after it stalled: %v", got)
	}
	r = s.ask(t, ns, "checkout")
	s.untilTold(t, r, "am", v1alpha1.NotifySeen)
	s.goes(t, r, v1alpha1.PhasePending, "Taken up by node-3.")
	s.goes(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced in 41s.")
	s.untilTold(t, r, "am", v1alpha1.NotifyDone)
	if got := firing(t, at, ns); len(got) != 0 {
		t.Errorf("after it succeeded: %v", got)
	}
}
