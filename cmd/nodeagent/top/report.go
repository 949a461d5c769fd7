// Package top shows a person what the containers of a node write, in the
// terminal: a table that can be sorted and filtered, with the files of one
// container behind it.
//
// It knows a Report and nothing of where that comes from. Everything but
// Program is a pure function of Reports and keys.
package top

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what a node's agent knows of its disks at one moment. It is the
// JSON that the agent serves on its local socket and `top -o json` prints.
type Report struct {
	Node        string       `json:"node"`
	At          time.Time    `json:"at"`
	Containers  []Container  `json:"containers"`
	Filesystems []Filesystem `json:"filesystems"`
}

// Container is one container's figures.
type Container struct {
	Namespace string `json:"namespace"` // of the pod; empty outside Kubernetes
	Pod       string `json:"pod"`
	Container string `json:"container"`
	ID        string `json:"id"` // containerd's
	// Bytes and Inodes are all parts together; Parts are bytes, and InodeParts
	// inodes, by part: layer, logs, emptydir, volume, deleted.
	Bytes      int64            `json:"bytes"`
	Inodes     int64            `json:"inodes"`
	Parts      map[string]int64 `json:"parts"`
	InodeParts map[string]int64 `json:"inodeParts"`
	Rate       Rate             `json:"bytesPerSecond"`
	// InodeRate is the growth in inodes.
	InodeRate Rate `json:"inodesPerSecond"`
	// FullSeconds is the time until the first bound is reached; null when it
	// does not grow. Resource is what runs out there: bytes or inodes.
	FullSeconds *float64  `json:"fullSeconds"`
	Bound       string    `json:"bound,omitempty"`
	Resource    string    `json:"resource,omitempty"`
	Offender    bool      `json:"offender"`
	Since       time.Time `json:"since,omitzero"`
	Message     string    `json:"message,omitempty"`
	Method      string    `json:"method"`
	AgeSeconds  float64   `json:"ageSeconds"`
	Growing     []File    `json:"growing,omitempty"`
}

// Rate is growth in bytes or inodes a second, with what the samples allow.
type Rate struct {
	Low      float64 `json:"low"`
	Expected float64 `json:"expected"`
	High     float64 `json:"high"`
}

// File is a file, or a folder told as a whole, that grows.
type File struct {
	Path           string  `json:"path"`
	Files          int     `json:"files,omitempty"` // of a folder told as a whole: its own, or all below it
	Bytes          int64   `json:"bytes"`
	BytesPerSecond float64 `json:"bytesPerSecond"`
	FilesPerSecond float64 `json:"filesPerSecond,omitempty"` // of a folder
}

// Filesystem is one file system that containers write to.
type Filesystem struct {
	Mount     string `json:"mount"`
	Size      int64  `json:"size"`
	Used      int64  `json:"used"`
	Available int64  `json:"available"`
	Reserve   int64  `json:"reserve"`
	// FullSeconds is the time until only the reserve of bytes is left,
	// InodesFullSeconds until only that of inodes is; null when it does not grow.
	FullSeconds *float64 `json:"fullSeconds"`
	// Inodes is 0 where the file system makes them as they are needed.
	Inodes            int64    `json:"inodes"`
	InodesUsed        int64    `json:"inodesUsed"`
	InodesFree        int64    `json:"inodesFree"`
	InodeReserve      int64    `json:"inodeReserve"`
	InodesFullSeconds *float64 `json:"inodesFullSeconds"`
}

// outcome tells in few words what becomes of a file system: what runs out
// first, or is short already.
func (f Filesystem) outcome() string {
	switch {
	case f.Size > 0 && f.Available <= f.Reserve:
		return "past its reserve"
	case f.Inodes > 0 && f.InodesFree <= f.InodeReserve:
		return "past its reserve of inodes"
	case f.InodesFullSeconds != nil && (f.FullSeconds == nil || *f.InodesFullSeconds < *f.FullSeconds):
		return "out of inodes in " + Span(*f.InodesFullSeconds)
	case f.FullSeconds != nil:
		return "full in " + Span(*f.FullSeconds)
	}
	return "does not fill"
}

// key tells containers apart from one report to the next.
func (c Container) key() string { return c.ID }

// full is the time until full in seconds, +Inf when it does not grow.
func (c Container) full() float64 {
	if c.FullSeconds == nil {
		return math.Inf(1)
	}
	return *c.FullSeconds
}

// blockBytes is what an inode counts as where it is compared with bytes: its
// file takes a block.
const blockBytes = 4096

// growth is that of what runs out first, in bytes a second.
func (c Container) growth() float64 {
	if c.inodesRunOut() {
		return max(c.Rate.Expected, blockBytes*c.InodeRate.Expected)
	}
	return c.Rate.Expected
}

// inodesRunOut tells whether inodes run out first, and grow.
func (c Container) inodesRunOut() bool { return c.Resource == "inodes" && c.InodeRate.Expected >= 1 }

// Order says by what the table is sorted.
type Order string

// The orders. Growth, of what runs out first, size and inodes put the most first,
// full the soonest.
const (
	ByFull   Order = "full"
	ByGrowth Order = "growth"
	BySize   Order = "size"
	ByInodes Order = "inodes"
	ByName   Order = "name"
)

// Orders lists all orders, as the key s goes through them.
func Orders() []Order { return []Order{ByFull, ByGrowth, BySize, ByInodes, ByName} }

// Arrange returns the containers whose namespace, pod or name holds filter, in
// the given order. Equal ones stand by name, so that rows do
// not jump.
func Arrange(all []Container, by Order, filter string) []Container {
	kept := slices.DeleteFunc(slices.Clone(all), func(c Container) bool {
		return !strings.Contains(strings.ToLower(c.fullName()), strings.ToLower(filter))
	})
	slices.SortFunc(kept, func(a, b Container) int {
		return cmp.Or(compare(a, b, by), cmp.Compare(a.fullName(), b.fullName()), cmp.Compare(a.ID, b.ID))
	})
	return kept
}

func compare(a, b Container, by Order) int {
	switch by {
	case ByGrowth:
		return cmp.Compare(b.growth(), a.growth())
	case BySize:
		return cmp.Compare(b.Bytes, a.Bytes)
	case ByInodes:
		return cmp.Compare(b.Inodes, a.Inodes)
	case ByName:
		return 0
	case ByFull:
	}
	return cmp.Or(first(b.Offender, a.Offender), cmp.Compare(a.full(), b.full()), cmp.Compare(b.growth(), a.growth()))
}

// first compares two flags: false before true.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// fullName is namespace/pod/container, without what is empty.
func (c Container) fullName() string {
	parts := slices.DeleteFunc([]string{c.Namespace, c.Pod, c.Container}, func(s string) bool { return s == "" })
	return strings.Join(parts, "/")
}
