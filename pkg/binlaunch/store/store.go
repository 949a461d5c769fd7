package store

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a Store needs. Fields that say so have a default.
type Options struct {
	// Dir is the store's folder; all of it is on one file system. It is made
	// if it is not there.
	Dir string
	// MaxBytes bounds what all entries take on disk. Default 10 GiB.
	MaxBytes int64
	// BootID tells one boot from another: /proc/sys/kernel/random/boot_id of
	// the host. Empty: read from there.
	BootID string
	// Grace is how long an entry stays after it was handed out, so that its
	// user has time to take a lease. Default 10 min.
	Grace time.Duration
	// Now tells the time. Default time.Now.
	Now    func() time.Time
	Logger *slog.Logger // nil: silent
}

// Entry is a tree in the store. It is read-only: whoever writes into it
// destroys it.
type Entry struct {
	Digest string // "sha256:" and 64 hex digits
	Path   string // the folder of the tree
	Bytes  int64  // on disk
	Files  []File
}

// Stats are counted since Open, but for Entries, Bytes and Leased, which are
// as of now.
type Stats struct {
	Entries, Leased            int
	Bytes, MaxBytes            int64
	Evicted, Tampered, Swept   int
	Verified, VerifiedFailures int
}

// Store is a folder of entries. Its methods may be called by many at once.
type Store struct {
	opts Options
	lock *os.File

	mu      sync.Mutex
	entries map[string]*record  // by digest
	leases  map[string]leaseSet // by digest
	stats   Stats
}

// record is what is known of an entry without reading it.
type record struct {
	sync.Mutex        // held while the entry is read in full
	bytes      int64  // on disk
	used       int64  // Unix time in ns; also the modification time of entry.json
	handed     int64  // when this process last handed it out, likewise; 0: never
	verified   string // boot and fingerprint as in the file of that name
}

// Open takes the store for this process, removes what was being written when
// the last one ended, and reads what there is. It fails when another process
// has the store.
func Open(o Options) (*Store, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, 10<<30)
	o.Grace = cmp.Or(o.Grace, 10*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BootID == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("cannot open store %s: %w", o.Dir, err)
		}
		o.BootID = string(b)
	}
	s := &Store{opts: o, entries: map[string]*record{}, leases: map[string]leaseSet{}}
	if err := s.open(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("cannot open store %s: %w", o.Dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	for dir, mode := range map[string]os.FileMode{"": 0o755, "entries": 0o755, "tmp": 0o700, "leases": 0o700, "known": 0o700} {
		if err := os.MkdirAll(s.path(dir), mode); err != nil {
			return err
		}
		if err := os.Chmod(s.path(dir), mode); err != nil { // whatever the umask is
			return err
		}
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	if err := s.readLeases(); err != nil {
		return err
	}
	return s.readEntries()
}

// Close gives the store back. Leases stay.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Dir is the store's folder.
func (s *Store) Dir() string { return s.opts.Dir }

// MaxBytes bounds what all entries take on disk.
func (s *Store) MaxBytes() int64 { return s.opts.MaxBytes }

// Stats tells what the store holds and what happened to it.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Entries, st.Bytes, st.MaxBytes = len(s.entries), s.bytes(), s.opts.MaxBytes
	for digest := range s.entries {
		if len(s.leases[digest]) > 0 {
			st.Leased++
		}
	}
	return st
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.opts.Dir}, parts...)...)
}

// bytes is what all entries take. The caller holds mu.
func (s *Store) bytes() int64 {
	var sum int64
	for _, r := range s.entries {
		sum += r.bytes
	}
	return sum
}

func (s *Store) takeLock() error {
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.lock = f
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("another process has it: is a second agent running on this node?")
	}
	return err
}

// sweep removes what was being written, or being removed, when the last
// process ended.
func (s *Store) sweep() error {
	left, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.RemoveAll(s.path("tmp", e.Name())); err != nil {
			return err
		}
		s.stats.Swept++
	}
	return nil
}

func (s *Store) readEntries() error {
	list, err := os.ReadDir(s.path("entries"))
	if err != nil {
		return err
	}
	for _, e := range list {
		r, digest, err := s.readEntry(e.Name())
		if err != nil {
			s.opts.Logger.Warn("removes an entry of the store that cannot be read", "entry", e.Name(), "err", err)
			if err := s.remove(e.Name()); err != nil {
				return err
			}
			continue
		}
		s.entries[digest] = r
	}
	return nil
}

func (s *Store) readEntry(name string) (*record, string, error) {
	path := s.path("entries", name, "entry.json")
	m, err := readManifest(path)
	if err != nil {
		return nil, "", err
	}
	if m.Digest != scheme+name {
		return nil, "", fmt.Errorf("%s names itself %s", path, m.Digest)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	verified, _ := os.ReadFile(s.path("entries", name, "verified")) // not there: read in full
	return &record{bytes: m.Bytes, used: st.ModTime().UnixNano(), verified: string(verified)}, m.Digest, nil
}
