package main

import "time"

// scale is how large the loads are.
type scale struct {
	layers, files int           // of an ordinary node: layers, and files in each
	settle        time.Duration // after the agent is ready, until its cost is taken
	calm          time.Duration // the same on an idle node: its layers were just made, and idle is what was not written to for a minute
	window        time.Duration // over which a cost is taken
	rounds        int           // how often ours and the peer's take turns
	period        time.Duration // containerd's pace

	growing  int           // layers of the node that grow
	rate     int64         // bytes a second by which each grows
	watching time.Duration // how long figures are watched
	rest     time.Duration // from the last write until figures are held against du

	churning int // layers with temporary files
	passes   int // of containerd over one of them

	walked int // files of the layer that is walked
	walks  int // how often by each

	giant int // files of the largest layer

	warming time.Duration // how long a log grows slowly before its writer is timed
	appends int           // of a writer in one turn
	turns   int           // of a writer with and without the agent

	many, manyFiles int // containers of a crowded node

	layerSteps []int // how cost grows with layers
	stepFiles  int   // in each of them
	fileSteps  []int // and with files of one layer
}

func full() scale {
	return scale{
		layers: 110, files: 2000, settle: 10 * time.Second, calm: 80 * time.Second, window: 20 * time.Second, rounds: 3, period: 10 * time.Second,
		growing: 5, rate: 1 << 20, watching: 40 * time.Second, rest: 5 * time.Second,
		churning: 10, passes: 300,
		walked: 200_000, walks: 7,
		giant:   1_000_000,
		warming: 3 * time.Second, appends: 51_200, turns: 8,
		many: 250, manyFiles: 200,
		layerSteps: []int{10, 100, 1000}, stepFiles: 20,
		fileSteps: []int{10_000, 100_000},
	}
}

// tiny is as large as a test of the bench itself needs.
func tiny() scale {
	return scale{
		layers: 3, files: 20, settle: 100 * time.Millisecond, calm: 100 * time.Millisecond, window: 300 * time.Millisecond, rounds: 1, period: 100 * time.Millisecond,
		growing: 1, rate: 1 << 20, watching: 2500 * time.Millisecond, rest: 2500 * time.Millisecond,
		churning: 3, passes: 6,
		walked: 500, walks: 1,
		giant:   500,
		warming: 200 * time.Millisecond, appends: 1024, turns: 1,
		many: 3, manyFiles: 5,
		layerSteps: []int{2}, stepFiles: 5,
		fileSteps: []int{100},
	}
}
