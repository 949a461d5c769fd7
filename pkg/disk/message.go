package disk

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const (
	// maxQuoted bounds a file name in a message.
	maxQuoted = 160
	// maxMessage is up to where a message, in bytes, names further files: an Event
	// has room for 1,024, also for what is done about it.
	maxMessage = 800
	// alsoNamed is how many those are.
	alsoNamed = 2
)

// message is an offence in one sentence for a person at 3 a.m.: which file, in
// what, how much, how fast, which others, until when.
func message(v Verdict, b forecast) string {
	what, others := grown(v, b)
	end := "; " + ending(v, b)
	link := "; also "
	for _, other := range others[:min(len(others), alsoNamed)] {
		if len(what)+len(link)+len(other)+len(end) > maxMessage {
			break
		}
		what += link + other
		link = " and "
	}
	return what + end
}

// grown tells what grew most, and the others that grew.
func grown(v Verdict, b forecast) (what string, others []string) {
	who := Name(v.Container)
	if b.resource == Inodes {
		return inodesGrown(v, b, who)
	}
	for _, e := range v.Evidence {
		folder := ""
		if e.Files > 0 {
			folder = fmt.Sprintf("%d files", e.Files)
		}
		switch {
		case e.Grew <= 0:
		case what != "":
			others = append(others, quote(e.Path)+inBrackets(folder, size(float64(e.Bytes)), size(e.Rate)+"/s"))
		default:
			what = fmt.Sprintf("%s in %s grew %s in %s (%s/s) to %s",
				quote(e.Path)+inBrackets(folder), who, size(float64(e.Grew)), span(e.Over), size(e.Rate), size(float64(e.Bytes)))
		}
	}
	if what == "" {
		what = fmt.Sprintf("%s holds %s on disk and grows by %s/s", who, size(float64(b.held)), size(b.own.Rate.Expected))
	}
	return what, others
}

func inodesGrown(v Verdict, b forecast, who string) (what string, others []string) {
	for _, e := range v.Evidence {
		switch {
		case e.FileRate <= 0:
		case what != "":
			others = append(others, quote(e.Path)+fmt.Sprintf(" (%d files, %.0f more a second)", e.Files, e.FileRate))
		default:
			what = fmt.Sprintf("%s in %s holds %d files (%s) and gets %.0f more a second", quote(e.Path), who, e.Files, size(float64(e.Bytes)), e.FileRate)
		}
	}
	if what == "" {
		what = fmt.Sprintf("%s holds %d files on disk and makes %.0f more a second", who, b.held, b.own.Rate.Expected)
	}
	return what, others
}

// inBrackets is what is to be said beside a name, if anything is.
func inBrackets(all ...string) string {
	if all = slices.DeleteFunc(all, func(s string) bool { return s == "" }); len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
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
