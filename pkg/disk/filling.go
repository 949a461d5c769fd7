package disk

import "time"

// Filling is how near the file systems of this node are to being full.
type Filling struct {
	// Sure: a container is an offender by a file system's bound. Message is the
	// offence of the one that is full first, in a sentence.
	Sure    bool
	Message string
	// Near: one is past its reserve, or is expected to reach it within twice
	// the horizon, whoever fills it.
	Near bool
}

// Filling tells it by the last looks.
func (w *Watcher) Filling() Filling {
	verdicts := w.Verdicts()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]filesystem, 0, len(w.filesystems))
	for _, fs := range w.filesystems {
		all = append(all, *fs)
	}
	return fillingOf(verdicts, all, w.opts.Policy)
}

func fillingOf(verdicts []Verdict, all []filesystem, p Policy) Filling {
	var f Filling
	soonest := Never
	for _, v := range verdicts {
		if v.Offender && v.Bound == BoundFilesystem && (!f.Sure || v.Until.Expected < soonest) {
			f.Sure, f.Message, soonest = true, v.Message, v.Until.Expected
		}
	}
	for _, fs := range all {
		bytes, inodes := fs.room(p)
		f.Near = f.Near || nearFull(bytes, fs.trends.Bytes, p.Horizon) ||
			fs.usage.Inodes > 0 && nearFull(inodes, fs.trends.Inodes, p.Horizon)
	}
	return f
}

func nearFull(room int64, t Trend, horizon time.Duration) bool {
	return room < 0 || timeFor(room, t.Rate.Expected) <= 2*horizon
}
