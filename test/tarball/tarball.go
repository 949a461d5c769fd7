// Package tarball makes archives as programs are published: a tar.gz with one
// folder around all files.
package tarball

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"path"
)

// File is one of an archive. All may be executed.
type File struct {
	Name    string
	Content []byte
}

// Pack puts files below folder into a tar.gz.
func Pack(folder string, files ...File) ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	for _, f := range files {
		h := &tar.Header{Name: path.Join(folder, f.Name), Mode: 0o755, Size: int64(len(f.Content)), Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.Content); err != nil {
			return nil, err
		}
	}
	err := errors.Join(archive.Close(), zip.Close())
	return out.Bytes(), err
}
