package disk

import (
	"cmp"
	"slices"
	"time"
)

// pace shares a budget of time among layers by what one look at each costs:
// together they take at most `share` of one core. Each is looked at every
// `least` as long as its part of the budget allows; a part that small layers
// leave over goes to the large ones. So a giant layer is looked at seldom, and
// no other layer less often because of it.
func pace(costs []time.Duration, least time.Duration, share float64) []time.Duration {
	order := make([]int, len(costs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(costs[a], costs[b]) })
	out := make([]time.Duration, len(costs))
	left := share
	for k, i := range order {
		part := left / float64(len(order)-k)
		wants := costs[i].Seconds() / least.Seconds()
		if wants <= part {
			out[i] = least
			left -= wants
			continue
		}
		out[i] = time.Duration(float64(costs[i]) / part)
		left -= part
	}
	return out
}
