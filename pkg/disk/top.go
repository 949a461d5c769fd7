package disk

// itemKey tells the items of one look apart that are all files, or all folders.
type itemKey struct {
	path string
	tree bool
}

func (it Item) key() itemKey { return itemKey{it.Path, it.Tree} }

// top keeps the largest items of a stream: a heap whose root is the smallest
// that is kept.
type top struct {
	items []Item
	max   int
}

func (t *top) reset() { t.items = t.items[:0] }

// wants tells whether an item of that size would be kept.
func (t *top) wants(bytes int64) bool {
	return len(t.items) < t.max || bytes > t.items[0].Bytes
}

func (t *top) add(it Item) {
	if len(t.items) < t.max {
		t.items = append(t.items, it)
		t.up(len(t.items) - 1)
		return
	}
	if it.Bytes > t.items[0].Bytes {
		t.items[0] = it
		t.down(0)
	}
}

func (t *top) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t.items[parent].Bytes <= t.items[i].Bytes {
			return
		}
		t.items[parent], t.items[i] = t.items[i], t.items[parent]
		i = parent
	}
}

func (t *top) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(t.items); c++ {
			if t.items[c].Bytes < t.items[least].Bytes {
				least = c
			}
		}
		if least == i {
			return
		}
		t.items[i], t.items[least] = t.items[least], t.items[i]
		i = least
	}
}

// union joins two tops, each item once.
func union(a, b *top) []Item {
	if len(a.items)+len(b.items) == 0 {
		return nil
	}
	out := append(make([]Item, 0, len(a.items)+len(b.items)), a.items...)
	seen := make(map[itemKey]bool, len(out))
	for _, it := range out {
		seen[it.key()] = true
	}
	for _, it := range b.items {
		if !seen[it.key()] {
			out = append(out, it)
		}
	}
	return out
}
