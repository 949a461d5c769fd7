package disk

import (
	"math"
	"time"
)

// recordLine is one line of a recording; one of its fields is set.
type recordLine struct {
	Head      *recordHead      `json:"head,omitempty"` // the first line
	Container *recordContainer `json:"container,omitempty"`
	Judged    *recordJudged    `json:"judged,omitempty"`
	Gone      string           `json:"gone,omitempty"` // a container's key
	End       string           `json:"end,omitempty"`  // why the recording ends; the last line
}

type recordHead struct {
	Format  string       `json:"format"`
	Version int          `json:"version"`
	Node    string       `json:"node,omitempty"`
	Began   time.Time    `json:"began"`
	Policy  recordPolicy `json:"policy"`
}

// recordContainer says who a container is and which places it has. It comes
// before the first verdict on it, and again when that changed.
type recordContainer struct {
	Key       string       `json:"key"`       // NAMESPACE/ID, of containerd
	Namespace string       `json:"namespace"` // of containerd
	ID        string       `json:"id"`
	Name      string       `json:"name,omitempty"`
	Pod       *recordPod   `json:"pod,omitempty"`
	Sandbox   bool         `json:"sandbox,omitempty"`
	Created   time.Time    `json:"created,omitzero"`
	Places    []recordHold `json:"places"`
}

type recordPod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

type recordHold struct {
	Place int    `json:"place"` // its number in this recording
	Part  Part   `json:"part"`
	Shown string `json:"shown,omitempty"` // where the container sees it
}

// recordJudged is one verdict's input: what is new since the verdict before.
type recordJudged struct {
	Container   string                 `json:"container"`
	At          time.Time              `json:"at"`
	Looks       []recordLook           `json:"looks,omitempty"`
	Filesystems map[string]recordUsage `json:"filesystems,omitempty"` // by mount point
	Limits      *recordLimits          `json:"limits,omitempty"`
}

type recordLook struct {
	Place  int       `json:"place"`
	At     time.Time `json:"at"`
	Mount  string    `json:"mount"`
	Bytes  int64     `json:"bytes"`
	Inodes int64     `json:"inodes"`
	// What all writers together held on the file system in that look.
	FilesystemBytes  int64          `json:"filesystemBytes"`
	FilesystemInodes int64          `json:"filesystemInodes"`
	TakesBack        int            `json:"takesBack,omitempty"`
	Grew             []recordGrowth `json:"grew,omitempty"`
}

type recordUsage struct {
	Size       int64 `json:"size"`
	Used       int64 `json:"used"`
	Avail      int64 `json:"avail"`
	Inodes     int64 `json:"inodes"`
	InodesUsed int64 `json:"inodesUsed"`
	InodesFree int64 `json:"inodesFree"`
}

func recordUsageOf(u FilesystemUsage) recordUsage {
	return recordUsage{u.Size, u.Used, u.Avail, u.Inodes, u.InodesUsed, u.InodesFree}
}

func (u recordUsage) usage() FilesystemUsage {
	return FilesystemUsage{
		Size: u.Size, Used: u.Used, Avail: u.Avail,
		Inodes: u.Inodes, InodesUsed: u.InodesUsed, InodesFree: u.InodesFree,
	}
}

// recordLimits are in bytes.
type recordLimits struct {
	Pod        int64            `json:"pod,omitempty"`
	Containers map[string]int64 `json:"containers,omitempty"`
}

type recordReserve struct {
	Percent float64 `json:"percent,omitempty"`
	Amount  int64   `json:"amount,omitempty"`
}

type recordReserves struct {
	Reserve      recordReserve `json:"reserve"`
	InodeReserve recordReserve `json:"inodeReserve"`
}

type recordPolicy struct {
	Reserve      recordReserve `json:"reserve"`
	InodeReserve recordReserve `json:"inodeReserve"`
	// Filesystems are those with reserves of their own, by mount point.
	Filesystems           map[string]recordReserves `json:"filesystems,omitempty"`
	HorizonSeconds        float64                   `json:"horizonSeconds"`
	SustainSeconds        float64                   `json:"sustainSeconds"`
	CalmSeconds           float64                   `json:"calmSeconds"`
	StartupSeconds        float64                   `json:"startupSeconds"`
	StartupSustainSeconds float64                   `json:"startupSustainSeconds"`
	MinBytes              int64                     `json:"minBytes"`
	MinInodes             int64                     `json:"minInodes"`
	MinShare              float64                   `json:"minShare"`
	MinRate               float64                   `json:"minRate"`
}

func recordPolicyOf(p Policy) recordPolicy {
	var own map[string]recordReserves
	for mount, r := range p.Filesystems {
		if own == nil {
			own = make(map[string]recordReserves, len(p.Filesystems))
		}
		own[mount] = recordReserves{recordReserve(r.Bytes), recordReserve(r.Inodes)}
	}
	return recordPolicy{
		Filesystems: own,
		Reserve:     recordReserve(p.Reserve), InodeReserve: recordReserve(p.InodeReserve),
		HorizonSeconds: p.Horizon.Seconds(), SustainSeconds: p.Sustain.Seconds(), CalmSeconds: p.Calm.Seconds(),
		StartupSeconds: p.Startup.Seconds(), StartupSustainSeconds: p.StartupSustain.Seconds(),
		MinBytes: p.MinBytes, MinInodes: p.MinInodes, MinShare: p.MinShare, MinRate: p.MinRate,
	}
}

func (p recordPolicy) policy() Policy {
	var own map[string]Reserves
	for mount, r := range p.Filesystems {
		if own == nil {
			own = make(map[string]Reserves, len(p.Filesystems))
		}
		own[mount] = Reserves{Reserve(r.Reserve), Reserve(r.InodeReserve)}
	}
	return Policy{
		Filesystems: own,
		Reserve:     Reserve(p.Reserve), InodeReserve: Reserve(p.InodeReserve),
		Horizon: ofSeconds(p.HorizonSeconds), Sustain: ofSeconds(p.SustainSeconds), Calm: ofSeconds(p.CalmSeconds),
		Startup: ofSeconds(p.StartupSeconds), StartupSustain: ofSeconds(p.StartupSustainSeconds),
		MinBytes: p.MinBytes, MinInodes: p.MinInodes, MinShare: p.MinShare, MinRate: p.MinRate,
	}
}

// recordGrowth is a file or folder that grew, by its path within the place.
type recordGrowth struct {
	Path           string  `json:"path"`
	Files          int     `json:"files,omitempty"`
	Bytes          int64   `json:"bytes"`
	Grew           int64   `json:"grew"`
	OverSeconds    float64 `json:"overSeconds"`
	BytesPerSecond float64 `json:"bytesPerSecond"`
	FilesPerSecond float64 `json:"filesPerSecond,omitempty"`
}

func recordGrowthOf(g Growth) recordGrowth {
	return recordGrowth{g.Path, g.Files, g.Bytes, g.Grew, g.Over.Seconds(), g.Rate, g.FileRate}
}

func (g recordGrowth) growth() Growth {
	return Growth{
		Path: g.Path, Files: g.Files, Bytes: g.Bytes, Grew: g.Grew,
		Over: ofSeconds(g.OverSeconds), Rate: g.BytesPerSecond, FileRate: g.FilesPerSecond,
	}
}

func ofSeconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }
