package runtime

import (
	"cmp"
	"errors"
	"maps"
	"slices"
)

// finding is what one look at one container brought. Each part can fail by
// itself.
type finding struct {
	ref        ref
	gone       bool      // containerd knows it no more
	container  Container // without Upper and PID where the errors say so
	recordErr  error     // nothing could be learnt
	layerErr   error     // the snapshotter did not answer
	processErr error     // the task did not answer
}

func (f finding) err() error {
	return errors.Join(f.recordErr, f.layerErr, f.processErr)
}

// set is all containers that are known.
type set map[ref]Container

// relisted decides the set after a full list: what was not listed is gone.
func (s set) relisted(findings []finding) set {
	next := make(set, len(findings))
	for _, f := range findings {
		previous, known := s[f.ref]
		if c, ok := settle(previous, known, f); ok {
			next[f.ref] = c
		}
	}
	return next
}

// reloaded decides the set after a look at some containers.
func (s set) reloaded(findings []finding) set {
	next := maps.Clone(s)
	for _, f := range findings {
		previous, known := s[f.ref]
		if c, ok := settle(previous, known, f); ok {
			next[f.ref] = c
		} else {
			delete(next, f.ref)
		}
	}
	return next
}

// settle decides what is held of a container after a look: a part that could
// not be learnt stays as it was. A new container whose layer is not known yet
// is left out, since an empty Upper would claim that there is none; one whose
// task does not answer (a hung shim) is not: its layer grows all the same.
func settle(previous Container, known bool, f finding) (Container, bool) {
	if f.gone {
		return Container{}, false
	}
	if f.recordErr != nil {
		return previous, known
	}
	c := f.container
	if f.layerErr != nil {
		if !known || previous.Layer.Key != c.Layer.Key || previous.Layer.Snapshotter != c.Layer.Snapshotter {
			return Container{}, false
		}
		c.Layer = previous.Layer
	}
	if f.processErr != nil {
		c.PID = previous.PID
	}
	return c, true
}

// completes fills in what the record of a container does not hold, if it is
// known: its layer stays where it is, and events tell of its process.
func (s set) completes(f *finding) bool {
	previous, known := s[f.ref]
	if !known || (previous.Layer.Upper == "" && previous.Layer.Source == "") {
		return false
	}
	c := f.container
	c.PID, c.Layer.Upper, c.Layer.Source = previous.PID, previous.Layer.Upper, previous.Layer.Source
	if !c.Equal(previous) {
		return false
	}
	f.container = c
	return true
}

// sorted gives the containers in an order that does not change from look to
// look: by containerd namespace, pod, container name, id.
func (s set) sorted() []Container {
	return slices.SortedFunc(maps.Values(s), func(a, b Container) int {
		return cmp.Or(
			cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Pod.Namespace, b.Pod.Namespace),
			cmp.Compare(a.Pod.Name, b.Pod.Name),
			cmp.Compare(a.Pod.UID, b.Pod.UID),
			cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.ID, b.ID),
		)
	})
}
