package runtime

import (
	"testing"

	"github.com/containerd/containerd/api/types/task"
)

func TestProcessID(t *testing.T) {
	for _, c := range []struct {
		name    string
		process *task.Process
		want    int
		wantErr bool
	}{
		{"running", &task.Process{Pid: 7, Status: task.Status_RUNNING}, 7, false},
		{"created", &task.Process{Pid: 7, Status: task.Status_CREATED}, 7, false},
		{"paused", &task.Process{Pid: 7, Status: task.Status_PAUSED}, 7, false},
		{"ended: the number may be another's by now", &task.Process{Pid: 7, Status: task.Status_STOPPED}, 0, false},
		{"the shim did not say", &task.Process{Status: task.Status_UNKNOWN}, 0, true},
		{"nothing", nil, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := processID(c.process)
			if got != c.want || (err != nil) != c.wantErr {
				t.Errorf("processID = %d, %v; want %d, error %t", got, err, c.want, c.wantErr)
			}
		})
	}
}
