package store

// WriteKnown keeps a note beside the entries, by name, whole or not at all.
// Package fetch keeps there what a URL without a digest led to.
func (s *Store) WriteKnown(name string, b []byte) error {
	return s.replace(s.path("known", name), b)
}
