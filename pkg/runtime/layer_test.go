package runtime

import (
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

func TestUpperFolder(t *testing.T) {
	overlay := func(kind string, options ...string) []mount.Mount {
		return []mount.Mount{{Type: kind, Source: "overlay", Options: options}}
	}
	bind := func(source string, options ...string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: source, Options: options}}
	}
	for _, c := range []struct {
		name        string
		snapshotter string
		mounts      []mount.Mount
		want        string
	}{
		{"overlayfs", "overlayfs", overlay("overlay", "index=off", "workdir=/r/9/work", "upperdir=/r/9/fs", "lowerdir=/r/1/fs:/r/2/fs"), "/r/9/fs"},
		{"a folder with commas and colons", "overlayfs", overlay("overlay", "upperdir=/r,a:b/9/fs"), "/r,a:b/9/fs"},
		{"fuse-overlayfs", "fuse-overlayfs", overlay("fuse3.fuse-overlayfs", "upperdir=/r/9/fs"), "/r/9/fs"},
		{"overlay of a snapshotter never heard of", "stargz", overlay("overlay", "upperdir=/s/9/fs"), "/s/9/fs"},
		{"overlayfs, image without layers", "overlayfs", bind("/r/9/fs", "rw", "rbind"), "/r/9/fs"},
		{"overlayfs, read-only view of one layer", "overlayfs", bind("/r/1/fs", "ro", "rbind"), ""},
		{"overlayfs, view", "overlayfs", overlay("overlay", "lowerdir=/r/1/fs:/r/2/fs"), ""},
		{"native: the image is in the same folder", "native", bind("/r/9", "rbind", "rw"), ""},
		{"a bind mount of a snapshotter never heard of", "stargz", bind("/r/9", "rw"), ""},
		{"devmapper", "devmapper", []mount.Mount{{Type: "ext4", Source: "/dev/mapper/pool-snap-9"}}, ""},
		{"btrfs", "btrfs", []mount.Mount{{Type: "btrfs", Source: "/dev/vdb", Options: []string{"subvolid=260"}}}, ""},
		{"zfs", "zfs", []mount.Mount{{Type: "zfs", Source: "pool/9"}}, ""},
		{"erofs below an overlay", "erofs", []mount.Mount{
			{Type: "erofs", Source: "/e/1/layer.erofs"},
			{Type: "format/overlay", Options: []string{"upperdir=/e/9/fs", "lowerdir={{ overlay 0 0 }}"}},
		}, "/e/9/fs"},
		{"erofs with a block for the writes", "erofs", []mount.Mount{
			{Type: "ext4", Source: "/e/9/rw.img"},
			{Type: "format/overlay", Options: []string{"upperdir={{ mount 0 }}/upper"}},
		}, ""},
		{"template behind a slash", "erofs", overlay("format/overlay", "upperdir=/{{ mount 0 }}/upper"), ""},
		{"nothing", "overlayfs", nil, ""},
		{"relative", "overlayfs", overlay("overlay", "upperdir=../../etc"), ""},
		{"empty", "overlayfs", overlay("overlay", "upperdir="), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := upperFolder(c.snapshotter, c.mounts); got != c.want {
				t.Errorf("upperFolder = %q, want %q", got, c.want)
			}
		})
	}
}
