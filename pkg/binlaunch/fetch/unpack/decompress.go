package unpack

import (
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// zstdWindow is the largest window that a zstd stream may ask for, in bytes:
// what zstd -19 --long needs, and no more.
const zstdWindow = 128 << 20

// decompress reads what r holds packed. Close frees what it holds.
func decompress(f Format, r io.Reader) (io.ReadCloser, error) {
	switch f.compression() {
	case Gz:
		return gzip.NewReader(r)
	case Zst:
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Xz:
		// It takes the memory that the stream's header asks for, up to 4 GiB:
		// the caller's process must be bounded.
		x, err := xz.NewReader(r)
		return io.NopCloser(x), err
	case Bz2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	default:
		return io.NopCloser(r), nil
	}
}
