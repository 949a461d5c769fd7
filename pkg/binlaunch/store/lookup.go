package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Lookup hands out the entry of a digest, if it is there and is as it was.
// After a reboot, and when a file's inode, size or times changed, it is read
// in full first: about 1 ms for each MB. An entry that is not as it was is
// removed and not found.
func (s *Store) Lookup(digest string) (Entry, bool, error) {
	name, err := folderName(digest)
	if err != nil {
		return Entry{}, false, err
	}
	now := s.opts.Now()
	s.mu.Lock()
	r := s.entries[digest]
	if r != nil {
		r.handed = now.UnixNano() // from here on it is not evicted
	}
	s.mu.Unlock()
	if r == nil {
		return Entry{}, false, nil
	}
	r.Lock()
	defer r.Unlock()
	m, err := readManifest(s.path("entries", name, "entry.json"))
	if err == nil {
		err = s.confirm(name, m, r)
	}
	if err == nil {
		s.touch(digest, r, now)
		return s.entry(name, m), true, nil
	}
	var changed *ChangedError
	if !errors.As(err, &changed) && !errors.Is(err, fs.ErrNotExist) {
		return Entry{}, false, fmt.Errorf("cannot verify %s in the store: %w", digest, err)
	}
	s.opts.Logger.Error("removes an entry of the store that is not what it was", "digest", digest, "err", err)
	return Entry{}, false, s.forget(digest, true)
}

func (s *Store) entry(name string, m manifest) Entry {
	return Entry{Digest: m.Digest, Path: s.path("entries", name, "files"), Bytes: m.Bytes, Files: m.Files}
}

// confirm holds an entry against its manifest: by a look at each file when
// this boot has read them all, else by reading them.
func (s *Store) confirm(name string, m manifest, r *record) error {
	root := s.path("entries", name, "files")
	print, err := fingerprint(root, m.Files)
	if err != nil {
		return err
	}
	want := verifiedRecord(s.opts.BootID, print)
	if r.verified == want {
		return nil
	}
	err = check(root, m.Files)
	s.mu.Lock()
	if s.stats.Verified++; err != nil {
		s.stats.VerifiedFailures++
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	r.verified = want
	// On a full disk it is not written, and read once more after a restart.
	_ = s.replace(s.path("entries", name, "verified"), []byte(want))
	return nil
}

// touch makes an entry the last used. It works on a full disk.
func (s *Store) touch(digest string, r *record, now time.Time) {
	name, _ := folderName(digest)
	_ = os.Chtimes(s.path("entries", name, "entry.json"), now, now)
	s.mu.Lock()
	r.used = now.UnixNano()
	s.mu.Unlock()
}

// forget removes an entry. Tampered: it was not what it should have been.
func (s *Store) forget(digest string, tampered bool) error {
	name, err := folderName(digest)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, digest)
	if tampered {
		s.stats.Tampered++
	}
	return s.remove(name)
}

// Remove takes an entry away unless it has a lease.
func (s *Store) Remove(digest string) error {
	s.mu.Lock()
	leased := len(s.leases[digest]) > 0
	s.mu.Unlock()
	if leased {
		return fmt.Errorf("cannot remove %s from the store: it is in use", digest)
	}
	return s.forget(digest, false)
}

// remove takes an entry away by one rename, then frees its space.
func (s *Store) remove(name string) error {
	gone, err := os.MkdirTemp(s.path("tmp"), "gone-")
	if err != nil {
		// No space for a folder: free the entry where it stands, its manifest
		// first, so that half of it is never taken for an entry.
		_ = os.Remove(s.path("entries", name, "entry.json"))
		return os.RemoveAll(s.path("entries", name))
	}
	err = os.Rename(s.path("entries", name), gone+"/entry")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// Has reports whether there is an entry of that digest, without a look at it.
func (s *Store) Has(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[digest] != nil
}
