package unpack

import (
	"archive/zip"
	"io"
	"io/fs"
)

// maxLink bounds the content of a symbolic link in a zip, in bytes.
const maxLink = maxPath + 1

// Zip unpacks a zip, whose list stands at its end: so it must be there whole.
func (t *Tree) Zip(r io.ReaderAt, size int64, l Layout) error {
	src := &source{}
	src.packed.Store(size)
	return blame(Zip, src, t.zip(src, r, size, l))
}

func (t *Tree) zip(src *source, r io.ReaderAt, size int64, l Layout) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return err
	}
	for _, f := range z.File {
		name, ok, err := l.place(f.Name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := t.zipEntry(src, f, name, l); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) zipEntry(s *source, f *zip.File, name string, l Layout) error {
	mode := f.Mode()
	if mode.IsDir() {
		return t.Folder(name)
	}
	if mode.Type() != 0 && mode.Type() != fs.ModeSymlink {
		return refuse("%q, which is a %s: neither file, folder nor link", f.Name, mode.Type())
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, maxLink))
		if err != nil {
			return err
		}
		return t.Symlink(name, string(target))
	}
	return t.File(name, l.mode(mode), r, t.spender(s))
}
