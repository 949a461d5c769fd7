package unpack

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName  = 255  // bytes of one part, as file systems have it
	maxPath  = 1024 // bytes
	maxDepth = 64   // parts
)

// clean returns the path of an entry below the tree's root: "." for the root
// itself. A name that leads out, or that a person could not read, is refused.
func clean(name string) (string, error) {
	switch {
	case name == "":
		return "", refuse("an entry without a name")
	case strings.HasPrefix(name, "/") || strings.ContainsRune(name, '\\') && windowsRoot(name):
		return "", refuse("the absolute path %q", name)
	case len(name) > maxPath:
		return "", refuse("a path of %d bytes, more than %d", len(name), maxPath)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "", refuse("the name %q, which is no printable UTF-8", name)
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxDepth {
		return "", refuse("%q, which is more than %d folders deep", name, maxDepth)
	}
	for _, p := range parts {
		if p == ".." {
			return "", refuse("%q, which leads up and out", name)
		}
		if len(p) > maxName {
			return "", refuse("a name of %d bytes, more than %d", len(p), maxName)
		}
	}
	return path.Clean(name), nil
}

func windowsRoot(name string) bool {
	return strings.HasPrefix(name, `\`) || len(name) > 1 && name[1] == ':'
}

// strip takes n leading parts off, as tar does. False: nothing is left.
func strip(name string, n int) (string, bool) {
	if n == 0 {
		return name, true
	}
	parts := strings.Split(name, "/")
	if name == "." || len(parts) <= n {
		return "", false
	}
	return strings.Join(parts[n:], "/"), true
}

// checkTarget refuses what a link at name may not point to. What is left leads
// from the link's own folder, which is reached through no link, only up to the
// root and then only down; and since every link in the tree is of that kind,
// none of them leads out, nor do they in a chain.
func checkTarget(name, target string) error {
	if target == "" || len(target) > maxPath || strings.HasPrefix(target, "/") {
		return refuse("the link %q to %q, which is not below the folder", name, target)
	}
	if !utf8.ValidString(target) || strings.ContainsFunc(target, unicode.IsControl) {
		return refuse("the link %q to %q, which is no printable UTF-8", name, target)
	}
	depth, down := strings.Count(name, "/"), false
	for p := range strings.SplitSeq(target, "/") {
		switch p {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 {
				return refuse("the link %q to %q, which may lead out", name, target)
			}
		default:
			down = true
		}
	}
	return nil
}
