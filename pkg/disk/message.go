package disk

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// maxQuoted bounds a file name in a message.
const maxQuoted = 160

// message is an offence in one sentence for a person at 3 a.m.: which file, in
// what, how much, how fast, until when.
func message(v Verdict, b forecast) string {
	var s strings.Builder
	s.WriteString(grown(v, b))
	s.WriteString("; ")
	s.WriteString(ending(v, b))
	return s.String()
}

func grown(v Verdict, b forecast) string {
	who := Name(v.Container)
	if b.resource == Inodes {
		return inodesGrown(v, b, who)
	}
	if len(v.Evidence) == 0 || v.Evidence[0].Grew <= 0 {
		return fmt.Sprintf("%s holds %s on disk and grows by %s/s", who, size(float64(b.held)), size(b.own.Rate.Expected))
	}
	e := v.Evidence[0]
	what := quote(e.Path)
	if e.Files > 0 {
		what += fmt.Sprintf(" (%d files)", e.Files)
	}
	return fmt.Sprintf("%s in %s grew %s in %s (%s/s)", what, who, size(float64(e.Grew)), span(e.Over), size(e.Rate))
}

func inodesGrown(v Verdict, b forecast, who string) string {
	for _, e := range v.Evidence {
		if e.FileRate > 0 {
			return fmt.Sprintf("%s in %s holds %d files and gets %.0f more a second", quote(e.Path), who, e.Files, e.FileRate)
		}
	}
	return fmt.Sprintf("%s holds %d files on disk and makes %.0f more a second", who, b.held, b.own.Rate.Expected)
}

func ending(v Verdict, b forecast) string {
	when := "in " + span(v.Until.Expected)
	switch {
	case b.room <= 0:
		when = "already"
	case v.Until.Expected == Never:
		when = "when it goes on"
	}
	switch b.bound {
	case BoundContainer:
		return fmt.Sprintf("its ephemeral-storage limit of %s is reached %s", size(float64(b.limit)), when)
	case BoundPod:
		return fmt.Sprintf("its pod's ephemeral-storage limit of %s is reached %s", size(float64(b.limit)), when)
	}
	if b.resource == Inodes {
		return fmt.Sprintf("%s is out of inodes %s", fileSystem(v), when)
	}
	if b.room <= 0 {
		return fmt.Sprintf("%s is below its reserve already", fileSystem(v))
	}
	return fmt.Sprintf("%s is full %s", fileSystem(v), when)
}

// fileSystem names a file system for someone who has many nodes.
func fileSystem(v Verdict) string {
	if v.Node == "" {
		return "the file system of " + quote(v.Filesystem)
	}
	return "the file system of " + quote(v.Filesystem) + " on " + v.Node
}

// Name is how people are told of a container: pod/container, or its id where
// there is no pod.
func Name(c runtime.Container) string {
	if c.Pod.Name == "" {
		return c.Namespace + "/" + c.ID
	}
	return c.Pod.Name + "/" + ContainerName(c)
}

// ContainerName is the container's name within its pod. A sandbox is called
// POD, as the kubelet and cAdvisor do.
func ContainerName(c runtime.Container) string {
	switch {
	case c.Sandbox:
		return "POD"
	case c.Pod.Name == "":
		return c.Namespace + "/" + c.ID
	}
	return c.Name
}

// quote makes a name that a container chose safe to be shown: one line, no
// terminal sequences, no marks that turn the writing around, bounded.
func quote(s string) string {
	if len(s) > maxQuoted {
		head, tail := s[:maxQuoted/2], s[len(s)-maxQuoted/2:]
		for len(head) > 0 && !utf8.RuneStart(s[len(head)]) {
			head = head[:len(head)-1]
		}
		for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
			tail = tail[1:]
		}
		s = head + "…" + tail
	}
	for _, r := range s {
		if r == utf8.RuneError || r == '"' || r == '\\' || r == ' ' || !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// size writes bytes as people read them: 512 B, 20 MiB, 1.2 GiB.
func size(b float64) string {
	const units = "KMGTPE"
	if b < 1024 {
		return fmt.Sprintf("%.0f B", b)
	}
	i := -1
	for b >= 1023.5 && i < len(units)-1 {
		b /= 1024
		i++
	}
	if b < 9.95 {
		return fmt.Sprintf("%.1f %ciB", b, units[i])
	}
	return fmt.Sprintf("%.0f %ciB", b, units[i])
}

// span writes a duration as people read it: 8 s, 22 min, 3 h, 2 d.
func span(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 90*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f d", d.Hours()/24)
}
