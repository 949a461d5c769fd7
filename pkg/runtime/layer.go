package runtime

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
)

// upperFolder finds in the mounts of an active snapshot the folder that holds
// the container's own writes and nothing else, or returns "".
//
//   - An overlay of whatever snapshotter (overlayfs, fuse-overlayfs, stargz,
//     nydus, erofs) names it: upperdir. A template such as "{{ mount 0 }}/upper"
//     (erofs with a block for each container) is no folder of the host.
//   - A bind mount of the overlay snapshotters means an image without layers:
//     there is nothing to lay over, and the folder is the upper one.
//   - A bind mount of any other snapshotter, native above all, is a copy of the
//     image with the writes among it.
//   - devmapper, blockfile, btrfs, zfs: a device or a subvolume, with the image.
func upperFolder(snapshotter string, mounts []mount.Mount) string {
	for _, m := range slices.Backward(mounts) {
		switch {
		case strings.HasSuffix(m.Type, "overlay") || strings.HasSuffix(m.Type, "overlayfs"):
			return hostFolder(option(m.Options, "upperdir="))
		case m.Type == "bind" && laysOver(snapshotter) && !slices.Contains(m.Options, "ro"):
			return hostFolder(m.Source)
		}
	}
	return ""
}

// sourceFolder finds where the host keeps a layer that has no upper folder.
func sourceFolder(mounts []mount.Mount) string {
	for _, m := range mounts {
		if !slices.Contains(m.Options, "ro") && !strings.HasPrefix(m.Source, "/dev/") {
			if folder := hostFolder(m.Source); folder != "" {
				return folder
			}
		}
	}
	return ""
}

func laysOver(snapshotter string) bool {
	return snapshotter == "overlayfs" || snapshotter == "fuse-overlayfs"
}

func option(options []string, prefix string) string {
	for _, o := range options {
		if value, ok := strings.CutPrefix(o, prefix); ok {
			return value
		}
	}
	return ""
}

func hostFolder(path string) string {
	if !filepath.IsAbs(path) || strings.Contains(path, "{{") {
		return ""
	}
	return filepath.Clean(path)
}
