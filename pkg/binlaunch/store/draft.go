package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncEach is up to how many files are synced one by one; beyond it one syncfs
// is cheaper, though it waits for what others wrote to the file system too.
const syncEach = 32

// Draft is a tree that is being made. Nobody finds it in the store until it is
// committed.
type Draft struct {
	store *Store
	dir   string
	// Files is the folder to unpack into. It belongs to whoever BeginFor
	// named, until Commit.
	Files string
}

// Begin makes an empty draft whose folder belongs to uid and gid.
func (s *Store) Begin(uid, gid int) (*Draft, error) {
	dir, err := os.MkdirTemp(s.path("tmp"), "draft-")
	if err != nil {
		return nil, fmt.Errorf("cannot begin in the store: %w", err)
	}
	d := &Draft{store: s, dir: dir, Files: filepath.Join(dir, "files")}
	if err := errors.Join(os.Mkdir(d.Files, 0o755), os.Chown(d.Files, uid, gid)); err != nil {
		_ = d.Discard()
		return nil, fmt.Errorf("cannot begin in the store: %w", err)
	}
	return d, nil
}

// Dir is a folder for the draft's maker, next to Files, gone with the draft.
func (d *Draft) Dir() string { return d.dir }

// Discard removes the draft and all that is in it. After Commit it does
// nothing.
func (d *Draft) Discard() error { return os.RemoveAll(d.dir) }

// Commit makes the draft the entry of digest. What lies in the folder must be
// files and nothing else; their content is taken as told by files, so the
// caller must have it from where the bytes went by. All of it is given to root
// and synced, then the entry appears whole. Room is made for it by taking away
// what was used longest ago. The draft is gone afterwards in any case.
func (d *Draft) Commit(digest string, files []File) (Entry, error) {
	defer d.Discard() //nolint:errcheck // what stays is swept at the next start
	name, err := folderName(digest)
	if err != nil {
		return Entry{}, err
	}
	m := manifest{Digest: digest, Bytes: bytesOf(files), Files: files}
	if err := d.finish(m); err != nil {
		return Entry{}, fmt.Errorf("cannot put %s into the store: %w", digest, err)
	}
	print, err := fingerprint(d.Files, files)
	if err != nil {
		return Entry{}, fmt.Errorf("cannot put %s into the store: %w", digest, err)
	}
	verified := verifiedRecord(d.store.opts.BootID, print)
	if err := writeSynced(filepath.Join(d.dir, "verified"), []byte(verified), false); err != nil {
		return Entry{}, fmt.Errorf("cannot put %s into the store: %w", digest, err)
	}
	if err := d.publish(name, m, verified); err != nil {
		return Entry{}, fmt.Errorf("cannot put %s into the store: %w", digest, err)
	}
	return d.store.entry(name, m), nil
}

// finish gives the tree to root and syncs it with its manifest.
func (d *Draft) finish(m manifest) error {
	// Whoever unpacked is another user, and must not reach it any more.
	folders := []string{d.dir, d.Files}
	if err := errors.Join(os.Lchown(d.Files, 0, 0), os.Chmod(d.Files, 0o755)); err != nil {
		return err
	}
	each := len(m.Files) <= syncEach
	err := look(d.Files, m.Files, func(f File, _ *syscall.Stat_t) error {
		path := filepath.Join(d.Files, f.Path)
		if f.Type == Folder {
			folders = append(folders, path)
		}
		if f.Type != Regular {
			return os.Lchown(path, 0, 0)
		}
		return adopt(path, f, each)
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(d.dir, "entry.json"), b, each); err != nil {
		return err
	}
	if !each {
		return syncFS(d.dir)
	}
	for _, dir := range folders {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// adopt gives a file to root and, if asked, waits until its bytes are on disk.
func adopt(path string, f File, sync bool) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Chown(0, 0); err != nil {
		return err
	}
	if err := file.Chmod(f.Mode); err != nil { // chown may have taken bits off
		return err
	}
	if !sync {
		return nil
	}
	return file.Sync()
}

// publish makes room, then renames the draft to where it is found.
func (d *Draft) publish(name string, m manifest, verified string) error {
	s := d.store
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.opts.Now()
	now := at.UnixNano()
	if r := s.entries[m.Digest]; r != nil { // somebody was faster; it is the same content
		r.handed, r.used = now, now
		return nil
	}
	if err := s.makeRoom(m.Bytes); err != nil {
		return err
	}
	if err := errors.Join(os.Chtimes(filepath.Join(d.dir, "entry.json"), at, at), os.Chmod(d.dir, 0o755)); err != nil {
		return err
	}
	err := os.Rename(d.dir, s.path("entries", name))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) { // left by whoever does not know of it
		if err = s.remove(name); err == nil {
			err = os.Rename(d.dir, s.path("entries", name))
		}
	}
	if err != nil {
		return err
	}
	s.entries[m.Digest] = &record{bytes: m.Bytes, used: now, handed: now, verified: verified}
	return syncDir(s.path("entries"))
}

// replace writes a file whole or not at all.
func (s *Store) replace(path string, b []byte) error {
	dir, err := os.MkdirTemp(s.path("tmp"), "write-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "file")
	if err := writeSynced(tmp, b, true); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func writeSynced(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
