// Command forecast measures how right and how early the verdicts are, over the
// recorded series of pkg/disk/testdata/series, beside a plain linear prediction
// as Prometheus' predict_linear makes it. Both see the same looks in the same
// run; it needs no root and takes a second.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench/forecast: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	series := flag.String("series", "pkg/disk/testdata/series", "`folder` of the recordings and of want.json")
	results := flag.String("results", "bench/results/forecast.json", "`file` of the rows")
	readme := flag.String("readme", "bench/README.md", "`file` of the table")
	flag.Parse()
	wants, err := readWants(filepath.Join(*series, "want.json"))
	if err != nil {
		return err
	}
	judges := []judge{
		{name: "nodeagent"},
		{name: "predict_linear", peer: &peer{}},
		{name: "predict_linear, for: 1m", peer: &peer{hold: time.Minute}},
	}
	var scores []score
	for _, j := range judges {
		s := score{name: j.name}
		for _, w := range wants {
			o, err := j.play(filepath.Join(*series, w.Name+".jsonl.gz"), w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			s.add(o)
		}
		scores = append(scores, s)
	}
	fmt.Print(perSeries(wants, scores))
	rows := rowsOf(scores)
	if err := report.Write(*results, rows); err != nil {
		return err
	}
	if err := report.Insert(*readme, "forecast", report.Table(rows)+"\n"+perSeries(wants, scores)); err != nil {
		return err
	}
	for _, r := range rows {
		if !r.Holds {
			return fmt.Errorf("%s: %v %s, want %s", r.Name, r.Ours, r.Unit, r.Target)
		}
	}
	return nil
}

// judge is who tells offenders: the agent's own verdict, or a peer.
type judge struct {
	name string
	peer *peer
}

// play runs through one recording.
func (j judge) play(path string, w want) (outcome, error) {
	f, err := os.Open(path)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	p, err := disk.NewReplay(f)
	if err != nil {
		return outcome{}, err
	}
	if err := p.SetPolicy(disk.DefaultPolicy()); err != nil {
		return outcome{}, err
	}
	o := outcome{want: w}
	var alert rule
	if j.peer != nil {
		alert = j.peer.rule(p.Policy())
	}
	return o, o.through(p, alert)
}
