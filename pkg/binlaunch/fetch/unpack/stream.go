package unpack

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync/atomic"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/ahead"
)

// Layout tells where in the tree an artifact goes.
type Layout struct {
	Format Format
	// Path is the file's own for a single file, the folder's for an archive.
	Path string
	// Mode is every file's, if it is not zero; else the archive's own, 0755
	// for a single file.
	Mode fs.FileMode
	// Strip is how many leading parts of each name are taken off.
	Strip int
}

// source is a stream that is counted. Decompressors read it from goroutines of
// their own, hence the atomics.
type source struct {
	r      io.Reader
	packed atomic.Int64
	failed atomic.Pointer[error] // why it could not be read to its end
	out    int64                 // what came out of it
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.packed.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		s.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// Stream unpacks what r holds, which is any format but Zip, and reads r to its
// end. An error of r is returned as it is. Stop ends a Read of r that waits; it
// is called when something went wrong, since another goroutine may be reading.
func (t *Tree) Stream(r io.Reader, stop func(), l Layout) error {
	src := &source{r: r}
	unpacked, err := decompress(l.Format, src)
	if err != nil {
		return blame(l.Format, src, err)
	}
	defer unpacked.Close()
	if l.Format.compression() == Raw { // nothing that could work meanwhile
		return blame(l.Format, src, t.plain(src, unpacked, l))
	}
	plain := ahead.New(unpacked)
	if err = blame(l.Format, src, t.plain(src, plain, l)); err != nil {
		stop()
	}
	plain.Close()
	return err
}

// plain makes the files of what is unpacked, and reads both to their ends.
func (t *Tree) plain(src *source, r io.Reader, l Layout) (err error) {
	if l.Format.Single() {
		err = t.single(src, r, l)
	} else {
		err = t.tar(src, r, l)
	}
	if err != nil {
		return err
	}
	// What follows the archive is part of the digest, and bounded as well.
	if err := t.discard(src, r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, src)
	return err
}

func (t *Tree) spender(s *source) func(int64) error {
	return func(n int64) error {
		s.out += n
		return t.spend(n, s.out, s.packed.Load())
	}
}

func (t *Tree) single(s *source, r io.Reader, l Layout) error {
	name, err := clean(l.Path)
	if err != nil {
		return err
	}
	mode := l.Mode
	if mode == 0 {
		mode = 0o755
	}
	return t.File(name, mode, r, t.spender(s))
}

// discard reads to the end. What is thrown away counts as what is kept.
func (t *Tree) discard(s *source, r io.Reader) error {
	buf := make([]byte, 64<<10)
	spend := t.spender(s)
	for {
		n, err := r.Read(buf)
		if err := spend(int64(n)); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *Tree) tar(s *source, r io.Reader, l Layout) error {
	counted := &tarReader{r: r, spend: t.spender(s)}
	tr := tar.NewReader(counted)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok, err := l.place(h.Name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := t.tarEntry(tr, h, name, l); err != nil {
			return err
		}
	}
}

// tarReader counts all that a tar consists of, headers and holes' maps too, so
// that an archive of nothing but headers ends as well.
type tarReader struct {
	r     io.Reader
	spend func(int64) error
}

func (c *tarReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err := c.spend(int64(n)); err != nil {
		return 0, err
	}
	return n, err
}

func (t *Tree) tarEntry(tr *tar.Reader, h *tar.Header, name string, l Layout) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.File(name, l.mode(h.FileInfo().Mode()), tr, func(n int64) error {
			// Bytes of the archive are counted below; a hole is bytes on disk
			// that stand in no archive.
			if !sparse(h) {
				return nil
			}
			return t.spend(n, 0, 0)
		})
	case tar.TypeDir:
		return t.Folder(name)
	case tar.TypeSymlink:
		return t.Symlink(name, h.Linkname)
	case tar.TypeLink:
		target, ok, err := l.place(h.Linkname)
		if err != nil || !ok {
			return errors.Join(err, refuse("the hard link %q to %q, which is not unpacked", h.Name, h.Linkname))
		}
		return t.Hardlink(name, target)
	case tar.TypeChar, tar.TypeBlock:
		return refuse("the device %q", h.Name)
	case tar.TypeFifo:
		return refuse("the FIFO %q", h.Name)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return refuse("%q of the unknown type %q", h.Name, h.Typeflag)
	}
}

func sparse(h *tar.Header) bool {
	_, sized := h.PAXRecords["GNU.sparse.realsize"]
	_, old := h.PAXRecords["GNU.sparse.size"]
	return sized || old || h.Typeflag == tar.TypeGNUSparse
}

// place tells where an archive's entry goes. False: nowhere, it is stripped.
func (l Layout) place(name string) (string, bool, error) {
	name, err := clean(name)
	if err != nil {
		return "", false, err
	}
	name, ok := strip(name, l.Strip)
	if !ok {
		return "", false, nil
	}
	return path.Join(l.Path, name), true, nil
}

func (l Layout) mode(own fs.FileMode) fs.FileMode {
	if l.Mode != 0 {
		return l.Mode
	}
	return own
}

// blame tells a broken archive from a broken disk or source, whose own error
// it returns.
func blame(f Format, s *source, err error) error {
	var refused *RefusedError
	var write *WriteError
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	if err == nil || errors.As(err, &refused) || errors.As(err, &write) {
		return err
	}
	return refuse("no valid %s: %v", f, err)
}
