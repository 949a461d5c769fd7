package store

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
)

// Type tells what a File is. There are no others: no devices, no FIFOs.
type Type string

// The types of files that a tree may hold.
const (
	Regular Type = "file"
	Folder  Type = "dir"
	Link    Type = "link"
)

// File is one name in a tree.
type File struct {
	// Path is slash-separated and below the tree's root, which is not listed.
	Path string `json:"path"`
	Type Type   `json:"type"`
	// Mode holds permission bits alone: no setuid, setgid, sticky.
	Mode fs.FileMode `json:"mode,omitempty"`
	// Size in bytes and SHA256 in lower-case hex are of regular files.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Target is where a symbolic link points.
	Target string `json:"target,omitempty"`
}

// manifest is entry.json: what an entry consists of.
type manifest struct {
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
	Files  []File `json:"files"`
}

// blockSize is what file systems round a file up to; a file or folder takes
// one at least.
const blockSize = 4096

// bytesOf is what the files take on disk, in bytes, rounded up to blocks.
func bytesOf(files []File) int64 {
	sum := int64(blockSize)
	for _, f := range files {
		sum += blockSize + (f.Size+blockSize-1)/blockSize*blockSize
	}
	return sum
}

func readManifest(path string) (manifest, error) {
	var m manifest
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return m, nil
}
