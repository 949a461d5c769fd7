package unpack

import (
	"path"
	"strings"
)

// Format is how an artifact is packed.
type Format string

// The formats that are unpacked. Single files: Raw, Gz, Xz, Zst, Bz2.
const (
	Raw    Format = "raw"
	Gz     Format = "gz"
	Xz     Format = "xz"
	Zst    Format = "zst"
	Bz2    Format = "bz2"
	Tar    Format = "tar"
	TarGz  Format = "tar.gz"
	TarXz  Format = "tar.xz"
	TarZst Format = "tar.zst"
	TarBz2 Format = "tar.bz2"
	Zip    Format = "zip"
)

// suffix is how a format is written at the end of a file's name.
type suffix struct {
	name   string
	format Format
}

// suffixes is ordered: the longer of two that fit comes first.
func suffixes() []suffix {
	return []suffix{
		{".tar.gz", TarGz}, {".tgz", TarGz}, {".tar.xz", TarXz}, {".txz", TarXz},
		{".tar.zst", TarZst}, {".tzst", TarZst}, {".tar.bz2", TarBz2}, {".tbz2", TarBz2}, {".tbz", TarBz2},
		{".tar", Tar}, {".zip", Zip}, {".gz", Gz}, {".xz", Xz}, {".zst", Zst}, {".bz2", Bz2},
	}
}

// Guess tells the format from a file's name, and the name without the
// format's suffix. Without a known suffix it is Raw.
func Guess(name string) (Format, string) {
	name = path.Base(name)
	lower := strings.ToLower(name)
	for _, s := range suffixes() {
		if strings.HasSuffix(lower, s.name) && len(name) > len(s.name) {
			return s.format, name[:len(name)-len(s.name)]
		}
	}
	return Raw, name
}

// Known reports whether there is such a format.
func (f Format) Known() bool {
	for _, s := range suffixes() {
		if s.format == f {
			return true
		}
	}
	return f == Raw
}

// Single reports whether one file comes out of it.
func (f Format) Single() bool {
	switch f {
	case Raw, Gz, Xz, Zst, Bz2:
		return true
	}
	return false
}

// compression is what the bytes have to be taken out of first, as the single
// file's format.
func (f Format) compression() Format {
	switch f {
	case Tar, Zip:
		return Raw
	default:
		return Format(strings.TrimPrefix(string(f), "tar."))
	}
}
