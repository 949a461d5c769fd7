// Package guest is what runs inside of the virtual machine: process 1, which
// reaps, and its one child, which loads modules, mounts what a Linux machine
// has, runs the given programs and tells the host of each. If the plan wants
// it, process 1 becomes systemd instead, and the child is a service of its.
//
// Host and guest share the two types of this file. The plan comes as a file of
// the initramfs. Messages go back as JSON, one after the other, over a
// virtio-serial port that carries nothing else, so that no test's output can be
// taken for a result.
package guest

import "time"

// PlanFile is the plan's place in the initramfs.
const PlanFile = "/plan.json"

// Port is the name of the virtio-serial port that the messages go to.
const Port = "nodeagent.messages"

// Plan is all that the guest does.
type Plan struct {
	Systemd bool     // process 1 becomes systemd, and the rest is done in a service
	Modules []string // files of kernel modules, each after those it needs
	Disks   []Disk
	Runs    []Run
}

// Disk is a formatted disk, or a tmpfs, and where it belongs.
type Disk struct {
	Serial  string // by which it is found below /sys/block, "" for a tmpfs
	FS      string
	Options string
	Dir     string
}

// Run is one program that is run to its end.
type Run struct {
	Name    string // for people
	Path    string
	Args    []string
	Env     []string
	Dir     string
	Tmp     string        // the folder that is to be seen at /tmp
	Timeout time.Duration // after which it is killed
}

// Kind tells what a message is about.
type Kind string

// The messages in the order in which they come; start, output and end come for
// each run.
const (
	Up     Kind = "up"     // Text is the kernel's release
	Start  Kind = "start"  // of the run called Text
	Output Kind = "output" // Data
	End    Kind = "end"    // of the run: Code, and in Text how if not by itself
	Failed Kind = "failed" // the guest itself, with the error Text
	Done   Kind = "done"   // all runs ended
)

// Message is what the guest tells the host.
type Message struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text,omitempty"`
	Data []byte `json:"data,omitempty"`
	Code int    `json:"code,omitempty"`
}
