package fetch

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Limits bound what fetching may cost. A zero is the default.
type Limits struct {
	Download int64 // bytes of one artifact as it is sent. Default 1 GiB
	Unpacked int64 // bytes of all artifacts of a binary. Default 4 GiB
	Files    int   // files, folders and links of all artifacts. Default 20000
	// Ratio bounds unpacked bytes by fetched ones, beyond the first 32 MiB.
	// Default 100.
	Ratio int64
	// Rate is how many bytes a second must come at least, on average over each
	// 30 s of waiting. Default 1024.
	Rate      int64
	Connect   time.Duration // until a connection stands, with TLS. Default 10 s
	Header    time.Duration // from request to answer. Default 30 s
	Stall     time.Duration // the window of Rate. Default 30 s
	Deadline  time.Duration // for all of it. Default 15 min
	Redirects int           // Default 5
	// Tries of all sources in a row without 64 KiB coming in. Default 5.
	Tries    int
	MinPause time.Duration // between tries, doubled each time, jittered. Default 250 ms
	MaxPause time.Duration // Default 10 s
	Parallel int           // artifacts of a binary at once. Default 4
	Memory   int64         // bytes of data of the confined process. Default 512 MiB
}

func (l *Limits) complete() {
	l.Download = cmp.Or(l.Download, 1<<30)
	l.Unpacked = cmp.Or(l.Unpacked, 4<<30)
	l.Files = cmp.Or(l.Files, 20000)
	l.Ratio = cmp.Or(l.Ratio, 100)
	l.Rate = cmp.Or(l.Rate, 1024)
	l.Connect = cmp.Or(l.Connect, 10*time.Second)
	l.Header = cmp.Or(l.Header, 30*time.Second)
	l.Stall = cmp.Or(l.Stall, 30*time.Second)
	l.Deadline = cmp.Or(l.Deadline, 15*time.Minute)
	l.Redirects = cmp.Or(l.Redirects, 5)
	l.Tries = cmp.Or(l.Tries, 5)
	l.MinPause = cmp.Or(l.MinPause, 250*time.Millisecond)
	l.MaxPause = cmp.Or(l.MaxPause, 10*time.Second)
	l.Parallel = cmp.Or(l.Parallel, 4)
	l.Memory = cmp.Or(l.Memory, 512<<20)
}

// ratioFrom is how many bytes may come out before the ratio counts: small
// files of zeros pack very well.
const ratioFrom = 32 << 20

func (l *Limits) pull(space int64) pull.Limits {
	return pull.Limits{
		Unpack:   unpack.Limits{Bytes: l.Unpacked, Files: l.Files, Ratio: l.Ratio, RatioFrom: ratioFrom, Space: space},
		Download: l.Download, Connect: l.Connect, Header: l.Header, Stall: l.Stall, StallRate: l.Rate,
		Redirects: l.Redirects, Tries: l.Tries, MinPause: l.MinPause, MaxPause: l.MaxPause, Parallel: l.Parallel,
	}
}

// Options are what a Fetcher needs. Fields that say so have a default.
type Options struct {
	Store *store.Store
	// Platform of this node. Default: this program's own.
	Platform Platform
	Limits   Limits
	// UID and GID are what the confined process runs as. Nothing else on the
	// node should. Default 64101.
	UID, GID int
	// Executable is the static program that hosts the confined process: its
	// main calls ChildMain first. Default /proc/self/exe.
	Executable string
	// KeysDir holds public keys: NAME.pub is the key NAME. Read at each Get.
	// Empty: there are none.
	KeysDir string
	// HeadersDir holds headers files. Empty: there are none.
	HeadersDir string
	// CAFile holds certificates in PEM to trust besides the system's own.
	CAFile string
	// ToPrivate lets redirects lead to loopback and private addresses.
	ToPrivate bool
	// Reserve is the part of the store's file system that fetching leaves
	// free. Default 0.05; negative: none.
	Reserve float64
	// Concurrent is how many binaries are fetched at once. Default 4.
	Concurrent int
	// Environ is where proxies are looked for: HTTP_PROXY, HTTPS_PROXY,
	// NO_PROXY in "name=value". Default: this process's own.
	Environ []string
	Logger  *slog.Logger // nil: silent
}

func (o *Options) complete() error {
	if o.Store == nil {
		return errors.New("cannot fetch: a Store is needed")
	}
	if o.Platform == (Platform{}) {
		o.Platform = Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}
	}
	o.Limits.complete()
	o.UID, o.GID = cmp.Or(o.UID, 64101), cmp.Or(o.GID, 64101)
	if o.UID < 0 || o.GID < 0 {
		return fmt.Errorf("cannot fetch as user %d, group %d", o.UID, o.GID)
	}
	o.Executable = cmp.Or(o.Executable, "/proc/self/exe")
	o.Reserve = cmp.Or(o.Reserve, 0.05)
	o.Concurrent = cmp.Or(o.Concurrent, 4)
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
