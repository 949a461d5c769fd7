package disk

import "time"

// snapshot is the watcher's state as metrics tell it: one entry for each set
// of labels.
type snapshot struct {
	containers  map[seriesKey]containerSeries
	filesystems map[string]filesystemSeries // by mount point
	unsupported map[string]int
	stuck       int
}

type seriesKey struct{ namespace, pod, container, uid string }

// containerSeries joins the containers of one name in one pod.
type containerSeries struct {
	usage    Usage
	growth   float64
	full     time.Duration
	age      time.Duration // of the oldest figure in it
	offender bool
	sandbox  bool
}

type filesystemSeries struct {
	usage            FilesystemUsage
	reserve          int64
	layers           int64 // bytes of the layers on it
	full, inodesFull time.Duration
}

func (w *Watcher) snapshot(now time.Time) snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := snapshot{
		containers:  make(map[seriesKey]containerSeries, len(w.tracks)),
		filesystems: make(map[string]filesystemSeries, len(w.filesystems)),
		unsupported: make(map[string]int, len(w.unsupported)),
	}
	for name, n := range w.unsupported {
		s.unsupported[name] = n
	}
	for _, fs := range w.filesystems {
		s.filesystems[fs.mount] = w.filesystemSeries(fs)
	}
	for _, t := range w.tracks {
		if !t.started.IsZero() && now.Sub(t.started) > stuckAfter {
			s.stuck++
		}
		if t.at.IsZero() {
			continue // nothing is known yet: no series rather than a zero
		}
		s.add(t, now)
	}
	return s
}

func (w *Watcher) filesystemSeries(fs *filesystem) filesystemSeries {
	x := filesystemSeries{usage: fs.usage, reserve: w.opts.Policy.Reserve.Of(fs.usage.Size)}
	x.full = timeFor(fs.usage.Avail-x.reserve, fs.trends.Bytes.Rate.Expected)
	inodes := fs.usage.InodesFree - w.opts.Policy.InodeReserve.Of(fs.usage.Inodes)
	x.inodesFull = timeFor(inodes, fs.trends.Inodes.Rate.Expected)
	return x
}

func (s *snapshot) add(t *track, now time.Time) {
	c := t.container
	k := seriesKey{c.Pod.Namespace, c.Pod.Name, ContainerName(c), c.Pod.UID}
	x, ok := s.containers[k]
	if !ok {
		x = containerSeries{full: Never, sandbox: c.Sandbox}
	}
	x.usage.Bytes += t.usage.Bytes
	x.usage.Inodes += t.usage.Inodes
	x.growth += t.trends.Bytes.Rate.Expected
	x.full = min(x.full, t.verdict.Until.Expected)
	x.age = max(x.age, now.Sub(t.at))
	x.offender = x.offender || t.verdict.Offender
	s.containers[k] = x
	fs := s.filesystems[t.fs.mount]
	fs.layers += t.usage.Bytes
	s.filesystems[t.fs.mount] = fs
}
