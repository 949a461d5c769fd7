package disk

import (
	"container/heap"
	"time"
)

// schedule holds the places that wait for a look, the first due on top
// (container/heap), so that those that are not due cost nothing. A place that is
// looked at is not in it.
type schedule []*place

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(a, b int) bool { return s[a].due.Before(s[b].due) }

func (s schedule) Swap(a, b int) {
	s[a], s[b] = s[b], s[a]
	s[a].slot, s[b].slot = a+1, b+1
}

// Push implements heap.Interface.
func (s *schedule) Push(x any) {
	p := x.(*place)
	*s = append(*s, p)
	p.slot = len(*s)
}

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	last := len(*s) - 1
	p := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	p.slot = 0
	return p
}

func (s *schedule) add(p *place) { heap.Push(s, p) }

func (s *schedule) remove(p *place) {
	if p.slot > 0 {
		heap.Remove(s, p.slot-1)
	}
}

// due takes what is due out of it, the longest waiting first, and puts it
// behind what is in the queue.
func (s *schedule) due(now time.Time, queue []*place) []*place {
	for len(*s) > 0 && !(*s)[0].due.After(now) {
		queue = append(queue, heap.Pop(s).(*place))
	}
	return queue
}
