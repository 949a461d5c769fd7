package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
)

// leaseSet holds the owners of an entry's leases.
type leaseSet map[string]bool

// Lease is a claim on an entry that outlives the agent.
type Lease struct{ Digest, Owner string }

// Lease keeps an entry from being evicted until Release, by whichever process.
// Owner names who uses it, a task. Taking it twice is as taking it once.
func (s *Store) Lease(digest, owner string) error {
	path, err := s.leasePath(digest, owner)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[digest] == nil {
		return fmt.Errorf("cannot lease %s for %s: it is not in the store", digest, owner)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot lease %s for %s: %w", digest, owner, err)
	}
	if s.leases[digest] == nil {
		s.leases[digest] = leaseSet{}
	}
	s.leases[digest][owner] = true
	return f.Close()
}

// Release gives a lease back. One that is not there is no error.
func (s *Store) Release(digest, owner string) error {
	path, err := s.leasePath(digest, owner)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases[digest], owner)
	if len(s.leases[digest]) == 0 {
		delete(s.leases, digest)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot release %s of %s: %w", digest, owner, err)
	}
	return nil
}

// Leases tells all leases there are. After a restart the caller releases those
// whose owner is no more.
func (s *Store) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Lease
	for digest, owners := range s.leases {
		for owner := range owners {
			out = append(out, Lease{Digest: digest, Owner: owner})
		}
	}
	slices.SortFunc(out, func(a, b Lease) int { return strings.Compare(a.Digest+a.Owner, b.Digest+b.Owner) })
	return out
}

func (s *Store) leasePath(digest, owner string) (string, error) {
	name, err := folderName(digest)
	if err != nil {
		return "", err
	}
	escaped := url.PathEscape(owner)
	if owner == "" || len(name)+1+len(escaped) > 255 {
		return "", fmt.Errorf("cannot lease %s for %q: the owner's name is empty or too long", digest, owner)
	}
	return s.path("leases", name+"."+escaped), nil
}

func (s *Store) readLeases() error {
	list, err := os.ReadDir(s.path("leases"))
	if err != nil {
		return err
	}
	for _, e := range list {
		name, escaped, _ := strings.Cut(e.Name(), ".")
		owner, err := url.PathUnescape(escaped)
		if err != nil {
			continue // not written by us
		}
		if s.leases[scheme+name] == nil {
			s.leases[scheme+name] = leaseSet{}
		}
		s.leases[scheme+name][owner] = true
	}
	return nil
}
