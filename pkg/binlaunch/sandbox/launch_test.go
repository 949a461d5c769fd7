package sandbox

import (
	"strings"
	"testing"
)

func TestIsolatedTask(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "look.1", "look")
	s.Env = []string{"OWN=1", "HOME=/else"}
	s.Ports = []Port{{"web", 8080}, {"admin-x", 8081}}
	task, record, err := l.Start(soon(t), s)
	if err != nil {
		t.Fatal(err)
	}
	e, out := ends(t, task)
	t.Logf("%+v\n%+v\n%s", record, e, out)
	if e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	for _, want := range []string{
		"cwd /sandbox\n", "hostname look.1\n", "uid 1879048192 gid 1879048192\n", "status CapEff: 0000000000000000\n", "status CapBnd: 0000000000000000\n",
		"status NoNewPrivs: 1\n", "status Seccomp: 2\n", "own file <nil>\n", "procs 1\n",
		"PORT0=8080 PORT_WEB=8080 PORT1=8081 PORT_ADMIN_X=8081 PORT=8080 PORTS=8080,8081 OWN=1 HOME=/else",
		"MESOS_SANDBOX=/sandbox", "MESOS_TASK_ID=look.1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("its output lacks %q", want)
		}
	}
	if err := task.Forget(soon(t)); err != nil {
		t.Error(err)
	}
}
