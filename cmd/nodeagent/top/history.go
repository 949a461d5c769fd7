package top

// history is each container's last rates, for the curve beside it.
type history map[string][]float64

// kept is how many rates are remembered.
const kept = 30

// add takes in a report and forgets containers that are gone.
func (h history) add(r Report) history {
	next := make(history, len(r.Containers))
	for _, c := range r.Containers {
		all := append(h[c.key()], c.Rate.Expected)
		if len(all) > kept {
			all = all[len(all)-kept:]
		}
		next[c.key()] = all
	}
	return next
}
