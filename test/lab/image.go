package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// writeImage writes an OCI archive of one static binary, which is also the
// entrypoint. It serves the sandbox image alone; the product's images are
// built by tools/image.
func writeImage(path, ref, binary string) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("cannot read the image's binary: %w", err)
	}
	entry := "/" + filepath.Base(binary)
	layer, err := tarOf(file{entry[1:], program, 0o755})
	if err != nil {
		return err
	}
	config := mustJSON(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{entry}},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	const oci = "application/vnd.oci.image."
	manifest := mustJSON(object{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
		"config": descriptor(oci+"config.v1+json", config),
		"layers": []object{descriptor(oci+"layer.v1.tar", layer)},
	})
	top := descriptor(oci+"manifest.v1+json", manifest)
	top["annotations"] = object{"io.containerd.image.name": ref}
	index := mustJSON(object{"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": []object{top}})

	blob := func(content []byte) file {
		return file{"blobs/sha256/" + digest(content)[len("sha256:"):], content, 0o644}
	}
	archive, err := tarOf(
		file{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644},
		file{"index.json", index, 0o644}, blob(manifest), blob(config), blob(layer))
	if err != nil {
		return err
	}
	return writeFileAtomic(path, archive)
}

type file struct {
	name    string
	content []byte
	mode    int64
}

func tarOf(files ...file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			return nil, fmt.Errorf("cannot write %s into the archive: %w", f.name, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("cannot write %s into the archive: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot finish the archive: %w", err)
	}
	return b.Bytes(), nil
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func descriptor(mediaType string, content []byte) object {
	return object{"mediaType": mediaType, "digest": digest(content), "size": len(content)}
}
