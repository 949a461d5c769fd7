// Command image makes an OCI image out of one static binary, with no engine,
// no registry and no base image, and writes it as an OCI archive that
// `ctr images import` and `podman load` read.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	o := options{}
	flag.StringVar(&o.binary, "binary", "", "static binary that becomes the entry point")
	flag.StringVar(&o.name, "name", "", "full image name, such as nodeagent.dev/nodeagent:v1")
	flag.StringVar(&o.out, "out", "", "OCI archive to write")
	flag.StringVar(&o.volume, "volume", "", "folder that is a VOLUME of the image")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture of the binary")
	flag.Parse()
	if o.binary == "" || o.name == "" || o.out == "" {
		fmt.Fprintln(os.Stderr, "image: want -binary, -name and -out")
		os.Exit(1)
	}
	if err := build(o); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

type options struct{ binary, name, out, arch, volume string }

func build(o options) error {
	img, err := imageOf(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(o.out), ".image-")
	if err != nil {
		return fmt.Errorf("cannot make a work folder: %w", err)
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("cannot write image layout: %w", err)
	}
	err = path.AppendImage(img, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": o.name,
		"io.containerd.image.name":          o.name,
	}), layout.WithPlatform(v1.Platform{OS: "linux", Architecture: o.arch}))
	if err != nil {
		return fmt.Errorf("cannot write image %s: %w", o.name, err)
	}
	return archive(dir, o.out)
}

// imageOf is one layer with the binary at the root, and its entry point. The
// same binary gives the same image: no time of day is written into it.
func imageOf(o options) (v1.Image, error) {
	data, err := os.ReadFile(o.binary)
	if err != nil {
		return nil, fmt.Errorf("cannot read binary: %w", err)
	}
	entry := "/" + filepath.Base(o.binary)
	files, err := layerTar(entry, data)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("cannot make layer: %w", err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, fmt.Errorf("cannot append layer: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("cannot read image config: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", o.arch
	cfg.Config.Entrypoint = []string{entry}
	cfg.Config.Env = []string{"PATH=/"}
	if o.volume != "" {
		cfg.Config.Volumes = map[string]struct{}{o.volume: {}}
	}
	return mutate.ConfigFile(img, cfg)
}

// layerTar holds the binary and the empty folders that programs expect.
func layerTar(entry string, data []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"etc/", "tmp/", "var/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
			return nil, fmt.Errorf("cannot write layer: %w", err)
		}
	}
	hdr := &tar.Header{Name: entry[1:], Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}
	if err := w.WriteHeader(hdr); err != nil {
		return nil, fmt.Errorf("cannot write layer: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("cannot write layer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot write layer: %w", err)
	}
	return buf.Bytes(), nil
}

// archive packs dir into out, which appears whole or not at all.
func archive(dir, out string) error {
	tmp := out + ".partial"
	f, err := os.Create(tmp)
	if err != nil {
		return fmt.Errorf("cannot write archive: %w", err)
	}
	defer os.Remove(tmp)
	w := tar.NewWriter(f)
	if err := packTree(w, dir); err != nil {
		return fmt.Errorf("cannot write archive %s: %w", out, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot write archive %s: %w", out, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write archive %s: %w", out, err)
	}
	return os.Rename(tmp, out)
}

func packTree(w *tar.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Name: rel + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)})
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		hdr := &tar.Header{Name: rel, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
