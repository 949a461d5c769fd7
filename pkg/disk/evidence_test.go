package disk

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestGrowths(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	file := func(path string, mb int64) Item { return Item{Path: path, Bytes: mb * mib} }
	fresh := func(path string, mb int64) Item { return Item{Path: path, Bytes: mb * mib, New: true} }
	folder := func(path string, files int, mb int64) Item { return Item{Path: path, Files: files, Bytes: mb * mib} }
	tree := func(path string, files int, mb int64) Item {
		return Item{Path: path, Files: files, Bytes: mb * mib, Tree: true}
	}
	// shards are what a cache holds that is spread over a thousand folders, as
	// far as a look tells it.
	shards := func(mb int64) []Item {
		all := []Item{tree("/srv/cache", int(1000*mb), 1000*mb)}
		for i := range 16 {
			all = append(all, tree(fmt.Sprintf("/srv/cache/%x", i), int(60*mb), 60*mb), folder(fmt.Sprintf("/srv/cache/%x/7f", i), 3, mb))
		}
		return all
	}
	type looks map[int]Look // by second
	for _, c := range []struct {
		name  string
		looks looks
		want  []string
	}{
		{"first look tells nothing", looks{0: {Files: []Item{file("/a", 100)}}}, nil},
		{
			"fastest first",
			looks{
				0:  {Files: []Item{file("/a", 100), file("/b", 5), file("/c", 900)}},
				10: {Files: []Item{file("/a", 110), file("/b", 205), file("/c", 900)}},
			},
			[]string{"/b 200 MiB in 10 s", "/a 10 MiB in 10 s"},
		},
		{
			"a new file grew from nothing, a renamed one did not grow",
			looks{
				0: {Files: []Item{file("/log", 500)}},
				2: {Files: []Item{fresh("/log2", 40), file("/log.1", 500)}},
			},
			[]string{"/log2 40 MiB in 2.0 s"},
		},
		{
			"growth starts when it starts",
			looks{
				0:  {Files: []Item{file("/a", 1)}},
				20: {Files: []Item{file("/a", 1)}},
				22: {Files: []Item{file("/a", 41)}},
			},
			[]string{"/a 40 MiB in 2.0 s"},
		},
		{
			"truncated, it starts over",
			looks{
				0: {Files: []Item{file("/a", 1)}}, 2: {Files: []Item{file("/a", 100)}},
				4: {Files: []Item{file("/a", 10)}}, 6: {Files: []Item{file("/a", 30)}},
			},
			[]string{"/a 20 MiB in 2.0 s"},
		},
		{
			"many small files are told as their folder",
			looks{
				0: {Folders: []Item{folder("/spool", 100, 10)}, Files: []Item{file("/spool/1", 1), file("/a", 1)}},
				2: {Folders: []Item{folder("/spool", 500, 50)}, Files: []Item{file("/spool/1", 2), file("/spool/2", 1), file("/a", 3)}},
			},
			[]string{"/spool 40 MiB in 2.0 s 500 files", "/a 2.0 MiB in 2.0 s"},
		},
		{
			"a folder with one large file is told as the file",
			looks{
				0: {Folders: []Item{folder("/logs", 3, 10)}, Files: []Item{file("/logs/x", 9)}},
				2: {Folders: []Item{folder("/logs", 3, 50)}, Files: []Item{file("/logs/x", 48)}},
			},
			[]string{"/logs/x 39 MiB in 2.0 s"},
		},
		{
			"a cache of many folders is told as the one that they lie in",
			looks{
				0: {Folders: append(shards(1), tree("/", 1020, 1050), folder("/srv/cache-old", 20, 40)), Files: []Item{file("/log", 9)}},
				2: {Folders: append(shards(2), tree("/", 2020, 2091), folder("/srv/cache-old", 20, 60)), Files: []Item{file("/log", 30)}},
			},
			[]string{"/srv/cache 1000 MiB in 2.0 s 2000 files", "/log 21 MiB in 2.0 s", "/srv/cache-old 20 MiB in 2.0 s 20 files"},
		},
		{
			"few folders that make up most are told, not the one that they lie in",
			looks{
				0: {Folders: []Item{tree("/", 90, 30), folder("/a", 30, 10), folder("/b", 30, 10), folder("/c", 30, 10)}},
				2: {Folders: []Item{tree("/", 390, 130), folder("/a", 150, 50), folder("/b", 120, 45), folder("/c", 120, 35)}},
			},
			[]string{"/a 40 MiB in 2.0 s 150 files", "/b 35 MiB in 2.0 s 120 files", "/c 25 MiB in 2.0 s 120 files"},
		},
		{
			"a folder's own files are told beside a file below it",
			looks{
				0: {Folders: []Item{tree("/q", 101, 100), folder("/q", 100, 10)}, Files: []Item{file("/q/big/x", 90)}},
				2: {Folders: []Item{tree("/q", 501, 200), folder("/q", 500, 50)}, Files: []Item{file("/q/big/x", 150)}},
			},
			[]string{"/q/big/x 60 MiB in 2.0 s", "/q 40 MiB in 2.0 s 500 files"},
		},
		{
			"new files in a new folder are told, not the folder that was there",
			looks{
				0: {Folders: []Item{tree("/", 40, 10)}},
				2: {Folders: []Item{tree("/", 43, 100), folder("/dumps", 3, 90)}, Files: []Item{fresh("/dumps/1", 40), fresh("/dumps/2", 30), fresh("/dumps/3", 20)}},
			},
			[]string{"/dumps/1 40 MiB in 2.0 s", "/dumps/2 30 MiB in 2.0 s", "/dumps/3 20 MiB in 2.0 s"},
		},
		{
			"a folder that shrank meanwhile is compared over its own time",
			looks{
				0:  {Folders: []Item{tree("/srv", 40, 100)}, Files: []Item{file("/srv/log", 10)}},
				20: {Folders: []Item{tree("/srv", 40, 60)}, Files: []Item{file("/srv/log", 110)}},
				22: {Folders: []Item{tree("/srv", 440, 160)}, Files: []Item{file("/srv/log", 120)}},
			},
			[]string{"/srv 100 MiB in 2.0 s 440 files"},
		},
		{
			"what makes up a quarter is told beside the folder",
			looks{
				0: {Folders: []Item{folder("/spool", 100, 10)}, Files: []Item{file("/spool/1", 1)}},
				2: {Folders: []Item{folder("/spool", 500, 110)}, Files: []Item{file("/spool/1", 31)}},
			},
			[]string{"/spool 100 MiB in 2.0 s 500 files", "/spool/1 30 MiB in 2.0 s"},
		},
		{
			"empty files in many folders",
			looks{
				0: {Folders: []Item{tree("/", 1010, 1), tree("/run", 1000, 0), folder("/run/a", 20, 0)}},
				2: {Folders: []Item{tree("/", 2010, 1), tree("/run", 2000, 0), folder("/run/a", 40, 0)}},
			},
			[]string{"/run 0 B in 2.0 s 2000 files"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m marks
			for s := range 30 {
				if l, ok := c.looks[s]; ok {
					m.look(at(s), l)
				}
			}
			var got []string
			for _, g := range m.growths() {
				text := fmt.Sprintf("%s %s in %s", g.Path, size(float64(g.Grew)), shortSpan(g.Over))
				if g.Files > 0 {
					text += fmt.Sprintf(" %d files", g.Files)
				}
				got = append(got, text)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func shortSpan(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return span(d)
}

// TestGrowthIsOfTheLastMinute: the time a growth is told over stays bounded.
func TestGrowthIsOfTheLastMinute(t *testing.T) {
	var m marks
	for s := 0; s <= 600; s += 2 {
		m.look(epoch.Add(time.Duration(s)*time.Second), Look{Files: []Item{{Path: "/a", Bytes: int64(s) * mib}}})
		if s < 120 {
			continue
		}
		g := m.growths()[0]
		if g.Over < 30*time.Second || g.Over > 64*time.Second || g.Rate != mib {
			t.Fatalf("at %d s: %+v", s, g)
		}
	}
}

func TestTop(t *testing.T) {
	k := top{max: 3}
	for _, n := range []int64{5, 1, 4, 2, 3, 9, 0} {
		k.add(Item{Path: fmt.Sprint(n), Bytes: n})
	}
	sum := int64(0)
	for _, it := range k.items {
		sum += it.Bytes
	}
	if len(k.items) != 3 || sum != 5+4+9 {
		t.Errorf("kept %+v, want 9, 5, 4", k.items)
	}
}

// TestMarksHoldLittle: a container chooses its paths, and must not choose how
// much of the agent's memory they take.
func TestMarksHoldLittle(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("p", 250), 16)
	look := func(mb int64) (l Look) {
		for i := range 256 {
			l.Files = append(l.Files, Item{Path: long + fmt.Sprint(i), Bytes: mb * mib})
		}
		return l
	}
	held := func(m marks) (n int) {
		for _, k := range m.items {
			n += len(k.path)
		}
		return n
	}
	var m marks
	m.look(epoch, look(5))
	m.look(epoch.Add(time.Second), look(5))
	if n := held(m); n != 0 {
		t.Errorf("%d bytes of paths of files that do not grow", n)
	}
	m.look(epoch.Add(2*time.Second), look(6))
	if n := held(m); n != 256*pathKept || len(m.items) != 256 {
		t.Errorf("%d bytes of %d paths that grow", n, len(m.items))
	}
	p := &place{}
	for i := range 2 * seriesLeast {
		p.look(Look{Started: epoch.Add(time.Duration(i) * time.Second), Files: look(7).Files})
	}
	if len(p.marks.items) != 0 {
		t.Errorf("%d files of an idle place are remembered", len(p.marks.items))
	}
}
