package disk

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// head is the first line.
func (r *Recorder) head(node string, p Policy, now time.Time) {
	if r == nil {
		return
	}
	r.put(recordLine{Head: &recordHead{
		Format: recordFormat, Version: recordVersion, Node: node, Began: now, Policy: recordPolicyOf(p),
	}})
}

// judged takes down what the verdict on t depends on, as far as it is new.
func (r *Recorder) judged(t *track, at time.Time, l Limits) {
	if r == nil || r.ended.Load() {
		return
	}
	r.container(t)
	j := &recordJudged{Container: keyOf(t.container).String(), At: at}
	if l.Pod > 0 || len(l.Containers) > 0 {
		j.Limits = &recordLimits{l.Pod, l.Containers}
	}
	for _, h := range t.holds {
		p := h.place
		if !p.known() {
			continue
		}
		if id := r.places[p.id]; !r.looks[id].Equal(p.at) {
			r.looks[id] = p.at
			j.Looks = append(j.Looks, recordLookOf(id, p))
		}
		if mount := p.fs.mount; r.filesystems[mount] != p.fs.usage {
			r.filesystems[mount] = p.fs.usage
			if j.Filesystems == nil {
				j.Filesystems = make(map[string]recordUsage)
			}
			j.Filesystems[mount] = recordUsageOf(p.fs.usage)
		}
	}
	r.put(recordLine{Judged: j})
}

func recordLookOf(id int, p *place) recordLook {
	l := recordLook{Place: id, At: p.at, Mount: p.fs.mount, Bytes: p.usage.Bytes, Inodes: p.usage.Inodes, TakesBack: p.takenBack}
	if n := len(p.series); n > 0 {
		l.FilesystemBytes, l.FilesystemInodes = p.series[n-1].Filesystem.Bytes, p.series[n-1].Filesystem.Inodes
	}
	for _, g := range p.evidence {
		l.Grew = append(l.Grew, recordGrowthOf(g))
	}
	return l
}

// container records who t is, where that is new.
func (r *Recorder) container(t *track) {
	c := t.container
	line := recordContainer{Key: keyOf(c).String(), Namespace: c.Namespace, ID: c.ID, Name: c.Name, Sandbox: c.Sandbox, Created: c.Created}
	if c.Pod != (runtime.Pod{}) {
		line.Pod = &recordPod{c.Pod.Namespace, c.Pod.Name, c.Pod.UID}
	}
	for _, h := range t.holds {
		id := r.places[h.place.id]
		if id == 0 {
			id = len(r.places) + 1
			r.places[h.place.id] = id
		}
		line.Places = append(line.Places, recordHold{Place: id, Part: h.place.id.part, Shown: h.shown})
	}
	text, err := json.Marshal(line)
	if err != nil {
		r.stop(err)
		return
	}
	if k := keyOf(c); !bytes.Equal(text, r.containers[k]) {
		r.containers[k] = text
		r.put(recordLine{Container: &line})
	}
}

// gone records that a container is there no more.
func (r *Recorder) gone(k key) {
	if r == nil || r.ended.Load() || r.containers[k] == nil {
		return
	}
	delete(r.containers, k)
	r.put(recordLine{Gone: k.String()})
}
