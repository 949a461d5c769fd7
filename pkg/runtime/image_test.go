package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const imageName = "test.invalid/writer:1"

// buildImage makes an OCI archive that holds testdata/writer alone: nothing is
// pulled.
func buildImage(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "writer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/writer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the test image's program: %v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	layer := tarball(t, map[string][]byte{"writer": content}, 0o755)
	files := map[string][]byte{}
	blob := func(mediaType string, content []byte) ocispec.Descriptor {
		d := digest.FromBytes(content)
		files["blobs/sha256/"+d.Encoded()] = content
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
	}
	asJSON := func(value any) []byte {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{blob(ocispec.MediaTypeImageLayer, layer)},
		Config: blob(ocispec.MediaTypeImageConfig, asJSON(ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: goruntime.GOARCH},
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
		})),
	}
	described := blob(ocispec.MediaTypeImageManifest, asJSON(manifest))
	described.Annotations = map[string]string{"io.containerd.image.name": imageName}
	files[ocispec.ImageIndexFile] = asJSON(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Manifests: []ocispec.Descriptor{described},
	})
	files[ocispec.ImageLayoutFile] = asJSON(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	return tarball(t, files, 0o644)
}

func tarball(t *testing.T, files map[string][]byte, mode int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// load imports the image into ctx's namespace and unpacks it.
func load(ctx context.Context, t *testing.T, c *client.Client, archive []byte, snapshotter string) client.Image {
	t.Helper()
	images, err := c.Import(ctx, bytes.NewReader(archive))
	if err != nil {
		t.Fatalf("cannot import the test image: %v", err)
	}
	if len(images) != 1 {
		t.Fatalf("the test archive brought %d images, want 1", len(images))
	}
	image := client.NewImage(c, images[0])
	if err := image.Unpack(ctx, snapshotter); err != nil {
		t.Fatalf("cannot unpack the test image for %s: %v", snapshotter, err)
	}
	return image
}
