package disk

import "time"

const (
	seriesWindow = 5 * time.Minute
	seriesMost   = 150 // five minutes at one sample in 2 s
	seriesLeast  = 8   // kept whatever their age: a giant layer is measured seldom
)

// Sample is one figure of a layer and of the file system it is on.
type Sample struct {
	At         time.Time
	Usage      Usage
	Filesystem Usage // used there by all writers together
}

// Series is the samples of one layer of the last five minutes, oldest first.
type Series []Sample

// Add appends a sample and lets go of what is too old. The result shares the
// memory of s.
func (s Series) Add(x Sample) Series {
	s = append(s, x)
	drop := 0
	for len(s)-drop > seriesMost || (len(s)-drop > seriesLeast && x.At.Sub(s[drop].At) > seriesWindow) {
		drop++
	}
	if drop == 0 {
		return s
	}
	return s[:copy(s, s[drop:])]
}

// estimate tells how one figure grows. Most layers don't, which costs nothing.
func (s Series) estimate(of func(Sample) int64) Trend {
	moves := false
	for _, x := range s[min(1, len(s)):] {
		moves = moves || of(x) != of(s[0])
	}
	if !moves {
		return Trend{}
	}
	points := make([]Point, len(s))
	for i, x := range s {
		points[i] = Point{At: x.At, Value: float64(of(x))}
	}
	return Estimate(points)
}

// Trends is how a layer grows, and how the rest of its file system does.
type Trends struct {
	Bytes, Inodes           Trend
	OtherBytes, OtherInodes Trend
}

// Trends estimates all four. The rest of the file system is looked at only
// where the layer grows, since only then does it matter to a verdict.
func (s Series) Trends() Trends {
	t := Trends{
		Bytes:  s.estimate(func(x Sample) int64 { return x.Usage.Bytes }),
		Inodes: s.estimate(func(x Sample) int64 { return x.Usage.Inodes }),
	}
	if t.Bytes.Rate.High > 0 {
		t.OtherBytes = s.estimate(func(x Sample) int64 { return x.Filesystem.Bytes - x.Usage.Bytes })
	}
	if t.Inodes.Rate.High > 0 {
		t.OtherInodes = s.estimate(func(x Sample) int64 { return x.Filesystem.Inodes - x.Usage.Inodes })
	}
	return t
}

// remembering keeps the peaks of the looks before: a series forgets them after
// five minutes, and the next tooth of a saw may be days long. A peak is
// forgotten when it is passed.
func (t Trends) remembering(before Trends, u Usage) Trends {
	t.Bytes.Peak = peakOf(t.Bytes, before.Bytes, u.Bytes)
	t.Inodes.Peak = peakOf(t.Inodes, before.Inodes, u.Inodes)
	return t
}

func peakOf(now, before Trend, held int64) float64 {
	if now.Floor || outgrew(float64(held), before.Peak) {
		return now.Peak
	}
	return max(now.Peak, before.Peak)
}
