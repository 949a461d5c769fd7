package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// candidate is an entry as eviction sees it.
type candidate struct {
	digest string
	bytes  int64
	used   int64 // Unix time in ns
	kept   bool  // leased, or handed out a moment ago
}

// victims chooses what must go so that need more bytes fit below max: what was
// used longest ago first, nothing that is kept. Without a way it returns
// false, and nothing need be taken away.
func victims(all []candidate, need, maximum int64) ([]string, bool) {
	over := need - maximum
	for _, c := range all {
		over += c.bytes
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.digest, b.digest))
	})
	var out []string
	for _, c := range all {
		if over <= 0 {
			break
		}
		if !c.kept {
			over -= c.bytes
			out = append(out, c.digest)
		}
	}
	return out, over <= 0
}

// makeRoom takes entries away until need more bytes fit. The caller holds mu.
func (s *Store) makeRoom(need int64) error {
	since := s.opts.Now().Add(-s.opts.Grace).UnixNano()
	all := make([]candidate, 0, len(s.entries))
	for digest, r := range s.entries {
		all = append(all, candidate{digest: digest, bytes: r.bytes, used: r.used,
			kept: len(s.leases[digest]) > 0 || r.handed > since})
	}
	out, ok := victims(all, need, s.opts.MaxBytes)
	if !ok {
		return &FullError{Dir: s.opts.Dir, Need: need, Used: s.bytes(), Max: s.opts.MaxBytes}
	}
	for _, digest := range out {
		name, _ := folderName(digest)
		if err := s.remove(name); err != nil {
			return err
		}
		s.stats.Evicted++
		s.opts.Logger.Info("takes an entry out of the store", "digest", digest, "bytes", s.entries[digest].bytes,
			"unused", time.Duration(s.opts.Now().UnixNano()-s.entries[digest].used).Round(time.Second).String())
		delete(s.entries, digest)
	}
	return nil
}

// FullError says that an entry does not fit, since all others are in use.
type FullError struct {
	Dir             string
	Need, Used, Max int64 // bytes
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the store %s is full: %d bytes more do not fit beside %d in use (bound %d); stop binaries or raise the store's size",
		e.Dir, e.Need, e.Used, e.Max)
}
