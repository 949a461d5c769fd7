package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigTellsEveryWrongField(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	for _, tt := range []struct{ name, text, want string }{
		{"unknown field", "disk: {horizn: 3m}", `disk.horizn: Forbidden: unknown field: want one of cpu, horizon, method, minimum, reserve`},
		{"unknown field at the top", "Listen: :1", `Listen: Forbidden: unknown field: want one of apiVersion, containerd, disk, hostRoot, kind, launch, listen, node, notify, restart, socket`},
		{"duration in words", "disk: {horizon: 5 minutes}", `disk.horizon: Invalid value: "5 minutes": want a duration such as 30m0s`},
		{"duration without a unit", "restart: {cooldown: 60}", `restart.cooldown: Invalid value: 60: want text such as "1h0m0s"`},
		{"horizon of zero", "disk: {horizon: 0s}", `disk.horizon: Invalid value: "0s": want between 1m and 168h`},
		{"cooldown of zero", "restart: {cooldown: 0s}", `restart.cooldown: Invalid value: "0s": want at least 1s`},
		{"deadline too short", "restart: {deadline: 9s}", `restart.deadline: Invalid value: "9s": want at least 10s`},
		{"reserve of all", "disk: {reserve: 100%}", `disk.reserve: Invalid value: "100%": want kubelet, a percentage below 100% such as 15%, or a quantity such as 20Gi`},
		{"unknown method", "disk: {method: events}", `disk.method: Unsupported value: "events": supported values: "auto", "walk"`},
		{"reserve of words", "disk: {reserve: much}", `disk.reserve: Invalid value: "much": want kubelet, a percentage below 100% such as 15%, or a quantity such as 20Gi`},
		{"reserve below zero", "disk: {reserve: -1Gi}", `disk.reserve: Invalid value: "-1Gi": want kubelet, a percentage below 100% such as 15%, or a quantity such as 20Gi`},
		{"reserve of no number", "disk: {reserve: NaN%}", `disk.reserve: Invalid value: "NaN%": want kubelet, a percentage below 100% such as 15%, or a quantity such as 20Gi`},
		{"quantity", "disk: {minimum: 64 MiB}", `disk.minimum: Invalid value: "64 MiB": want a quantity such as 64Mi`},
		{"share too large", "disk: {cpu: 101%}", `disk.cpu: Invalid value: "101%": want a share of one core between 0.1% and 100%, such as 2%`},
		{"share too small", "disk: {cpu: 0.01%}", `disk.cpu: Invalid value: "0.01%": want a share of one core between 0.1% and 100%, such as 2%`},
		{"share without a sign", "disk: {cpu: '2'}", `disk.cpu: Invalid value: "2": want a share of one core between 0.1% and 100%, such as 2%`},
		{"relative path", "hostRoot: host", `hostRoot: Invalid value: "host": want an absolute path`},
		{"relative socket", "containerd: {socket: c.sock}", `containerd.socket: Invalid value: "c.sock": want an absolute path`},
		{"node name", "node: Node_1", `node: Invalid value: "Node_1": want a DNS name in lower case, such as node-1`},
		{"apiVersion", "apiVersion: v1", `apiVersion: Unsupported value: "v1": supported values: "nodeagent.dev/v1alpha1"`},
		{"kind", "kind: Restart", `kind: Unsupported value: "Restart": supported values: "Config"`},
		{"port", "listen: :99999", `listen: Invalid value: ":99999": want HOST:PORT or :PORT, the port from 0 to 65535`},
		{"no port", "listen: localhost", `listen: Invalid value: "localhost": want HOST:PORT or :PORT, the port from 0 to 65535`},
		{"window", "restart: {windows: [{start: later, duration: 1h}]}", `restart.windows[0].start: Invalid value: "later": want a cron line of five fields such as 0 22 * * 1-5`},
		{"time zone", "restart: {windows: [{start: 0 22 * * *, duration: 1h, timeZone: Mars/Olympus}]}", `restart.windows[0].timeZone: Invalid value: "Mars/Olympus": want a name of the time zone database, such as Europe/Berlin`},
		{"limit", "restart: {limits: {cluster: 0}}", `restart.limits.cluster: Invalid value: 0: want between 1 and 1000`},
		{"limit in words", "restart: {limits: {cluster: five}}", `restart.limits.cluster: Invalid value: "five": want a whole number such as 5`},
		{"receiver without a place", "notify: {receivers: [{name: a, kind: Webhook}]}", `notify.receivers[0]: Invalid value: "a": want either url or urlFile`},
		{"receiver of no kind", "notify: {receivers: [{name: a, url: 'http://h'}]}", `notify.receivers[0].kind: Unsupported value: "": supported values: "Chat", "Webhook", "Alertmanager"`},
		{"a chat's token", "notify: {receivers: [{name: a, kind: Chat, url: 'slack://x'}]}", `notify.receivers[0].url: Forbidden: a chat's URL holds a token: put it into a Secret and name its file in urlFile`},
		{"a password", "notify: {receivers: [{name: a, kind: Webhook, url: 'http://u:s3cret@h'}]}", `notify.receivers[0].url: Forbidden: it holds a password: put it into a Secret and name its file in urlFile`},
		{"two of a name", "notify: {receivers: [{name: a, kind: Webhook, url: 'http://h'}, {name: a, kind: Webhook, url: 'http://h'}]}", `notify.receivers[1].name: Duplicate value: "a"`},
		{"a receiver's name", "notify: {receivers: [{name: none, kind: Webhook, url: 'http://h'}]}", `notify.receivers[0].name: Invalid value: "none": want a name in lower case such as oncall, and not none`},
		{"signed alerts", "notify: {receivers: [{name: a, kind: Alertmanager, url: 'http://h', keyFile: /k}]}", `notify.receivers[0].keyFile: Forbidden: only a Webhook's messages are signed`},
		{"an unknown receiver", "notify: {default: [b]}", `notify.default[0]: Invalid value: "b": want the name of a receiver, or none`},
		{"mode", "restart: {mode: kill}", `restart.mode: Unsupported value: "kill": supported values: "act", "approve", "observe"`},
		{"what to do about a stall", "restart: {onStall: undo}", `restart.onStall: Unsupported value: "undo": supported values: "leave", "rollback"`},
		{"text for a list", "containerd: {namespaces: k8s.io}", `containerd.namespaces: Invalid value: "k8s.io": want a list`},
		{"no namespace", "containerd: {namespaces: []}", `containerd.namespaces: Required value: want at least one, such as k8s.io`},
		{"empty namespace", "containerd: {namespaces: [~]}", `containerd.namespaces[0]: Invalid value: null: want text such as "k8s.io"`},
		{"odd namespace", "containerd: {namespaces: [a/b]}", `containerd.namespaces[0]: Invalid value: "a/b": want the name of a containerd namespace, such as k8s.io`},
		{"excluded namespace", "restart: {excludeNamespaces: [Kube]}", `restart.excludeNamespaces[0]: Invalid value: "Kube": want the name of a Kubernetes namespace`},
		{"launch by a word", "launch: {enabled: often}", `launch.enabled: Invalid value: "often": want true or false`},
		{"range of ports", "launch: {ports: 32000-31000}", `launch.ports: Invalid value: "32000-31000": want two ports such as 31000-32000`},
		{"size of the store", "launch: {storeBytes: 0}", `launch.storeBytes: Invalid value: 0: want text such as "10Gi"`},
		{"folder of binaries", "launch: {folder: b.d}", `launch.folder: Invalid value: "b.d": want an absolute path`},
		{"cgroup of tasks", "launch: {cgroup: ../x}", `launch.cgroup: Invalid value: "../x": want a cgroup's name such as nodeagent, without / before it`},
		{"cgroup of systemd's", "launch: {cgroup: nodeagent.slice}", `launch.cgroup: Invalid value: "nodeagent.slice": want no name of a systemd unit: systemd would take the tasks' limits away`},
		{"value for fields", "disk: 3", `disk: Invalid value: 3: want fields: cpu, horizon, method, minimum, reserve`},
		{"no fields at all", "hello", `the file: Invalid value: "hello": want fields: apiVersion, containerd, disk, hostRoot, kind, launch, listen, node, notify, restart, socket`},
		{"a list at all", "- disk", `the file: Invalid value: ["disk"]: want fields: apiVersion, containerd, disk, hostRoot, kind, launch, listen, node, notify, restart, socket`},
		{"syntax", "disk: [\n", `yaml: line 1: did not find expected node content`},
		{"twice", "listen: :1\nlisten: :2\n", `yaml: unmarshal errors: line 2: key "listen" already set in map`},
		{"several", "hostRoot: host\nlisten: x\n", `[hostRoot: Invalid value: "host": want an absolute path, listen: Invalid value: "x": want HOST:PORT or :PORT, the port from 0 to 65535]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writeConfig(t, tt.text)
			_, err := loadConfig(path, true)
			if err == nil {
				t.Fatal("no error")
			}
			want := "cannot use config " + path + ": " + tt.want
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Error("more than one line")
			}
		})
	}
}

func TestLoadConfigDefaults(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	want := v1alpha1.DefaultConfig()
	want.Node = "node-1"
	for name, text := range map[string]string{
		"empty": "", "comment": "# nothing\n", "null": "null", "empty fields": "node:\ndisk:\nrestart:\n  cooldown:\n  excludeNamespaces:\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := loadConfig(writeConfig(t, text), true)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
	t.Run("no file that was not named", func(t *testing.T) {
		got, err := loadConfig(filepath.Join(t.TempDir(), "config.yaml"), false)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	if errs := want.Validate(); len(errs) > 0 {
		t.Errorf("the defaults are refused: %v", errs)
	}
}

func TestLoadConfigTakesWhatIsSaid(t *testing.T) {
	got, err := loadConfig(writeConfig(t, `
apiVersion: nodeagent.dev/v1alpha1
kind: Config
node: worker-7.example
hostRoot: /host
listen: 127.0.0.1:0
socket: /tmp/agent.sock
containerd: {socket: /c.sock, namespaces: [default, moby]}
disk: {reserve: 20Gi, horizon: 1h30m, minimum: "0", cpu: 0.5%, method: walk}
restart:
  mode: observe
  onStall: rollback
  cooldown: 1s
  deadline: 10s
  excludeNamespaces: []
  approvalTimeout: 1m
  limits: {cluster: 1, namespace: 2, hourly: 3}
  windows: [{start: "30 1 * * *", duration: 2h, timeZone: Asia/Tokyo}]
  urgent: 0s
  taintFillingNode: false
launch: {enabled: true, folder: /b.d, root: /r, state: /s, cgroup: c/d, ports: 40000-40010, storeBytes: 1Gi, allowPrivileged: true, allowPrivateRedirects: true}
`), true)
	if err != nil {
		t.Fatal(err)
	}
	want := &v1alpha1.Config{
		TypeMeta: metav1.TypeMeta{APIVersion: "nodeagent.dev/v1alpha1", Kind: "Config"},
		Node:     "worker-7.example", HostRoot: "/host", Listen: "127.0.0.1:0", Socket: "/tmp/agent.sock",
		Containerd: v1alpha1.ContainerdConfig{Socket: "/c.sock", Namespaces: []string{"default", "moby"}},
		Disk:       v1alpha1.DiskConfig{Reserve: "20Gi", Horizon: metav1.Duration{Duration: 90 * time.Minute}, Minimum: "0", CPU: "0.5%", Method: v1alpha1.MethodWalk},
		Restart: v1alpha1.RestartConfig{Mode: v1alpha1.ModeObserve, OnStall: v1alpha1.OnStallRollback, Cooldown: metav1.Duration{Duration: time.Second},
			Deadline: metav1.Duration{Duration: 10 * time.Second}, ExcludeNamespaces: []string{},
			ApprovalTimeout: metav1.Duration{Duration: time.Minute}, Limits: v1alpha1.RestartLimits{Cluster: 1, Namespace: 2, Hourly: 3},
			Windows: []v1alpha1.RestartWindow{{Start: "30 1 * * *", Duration: metav1.Duration{Duration: 2 * time.Hour}, TimeZone: "Asia/Tokyo"}}},
		Launch: v1alpha1.LaunchConfig{Enabled: true, Folder: "/b.d", Root: "/r", State: "/s", Cgroup: "c/d",
			Ports: "40000-40010", StoreBytes: "1Gi", AllowPrivileged: true, AllowPrivateRedirects: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, bytes, _ := v1alpha1.ParseReserve(got.Disk.Reserve); bytes != 20<<30 {
		t.Errorf("reserve is %d bytes", bytes)
	}
	if share := got.Disk.CPUShare(); share != 0.005 {
		t.Errorf("cpu share is %v", share)
	}
}

func TestNodeName(t *testing.T) {
	path := writeConfig(t, "")
	t.Setenv("NODE_NAME", "Node_1")
	_, err := loadConfig(path, true)
	want := `cannot use $NODE_NAME "Node_1" as this node's name: it is no DNS name in lower case: set node in ` + path
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	t.Setenv("NODE_NAME", "")
	cfg, err := loadConfig(path, true)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if cfg.Node != strings.ToLower(host) {
		t.Errorf("node %q on host %q", cfg.Node, host)
	}
}
