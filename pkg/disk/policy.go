package disk

import (
	"errors"
	"time"
)

// Reserve is what is to stay free of a file system: a share of its size or an
// amount, as the kubelet's eviction thresholds have it; of both the larger.
type Reserve struct {
	Percent float64 // 0–100
	Amount  int64   // bytes or inodes
}

// Of is the amount for a file system of that size.
func (r Reserve) Of(size int64) int64 {
	return max(r.Amount, int64(float64(size)*r.Percent/100))
}

// Reserves are those of one file system.
type Reserves struct{ Bytes, Inodes Reserve }

// Policy says when growth is an offence. Start from DefaultPolicy.
type Policy struct {
	// Reserve is what must stay free on a file system: below it the kubelet
	// evicts. Default 15%, the kubelet's own imagefs.available.
	Reserve Reserve
	// InodeReserve likewise. Default 5%, the kubelet's imagefs.inodesFree.
	InodeReserve Reserve
	// Filesystems are the reserves of those that have others than these, by
	// mount point as the host sees it.
	Filesystems map[string]Reserves
	// Horizon: growth is an offence when a bound is reached within it, even
	// at the lowest rate that the samples allow. Default 30 min: ample for a
	// rollout, and too short for a start-up to look like it on most disks.
	Horizon time.Duration
	// Sustain is for how long it must have been growing, seen in at least
	// four looks. Default 5 s: a fill of 3 s is never an offence, and a leak is
	// one within 8 s: up to 2 s until the first look that sees it, then one a
	// second.
	Sustain time.Duration
	// Startup and StartupSustain: a container that grows since Startup after
	// it was first looked at, or before, must have grown for StartupSustain, or
	// for a tenth of the time that is left if that is less. Default 1 s, 1 min.
	Startup, StartupSustain time.Duration
	// Calm is for how long no bound may be nearer than twice the Horizon
	// before an offender is none any more. Default 1 min.
	Calm time.Duration
	// MinBytes and MinInodes: a container that holds less is not blamed for a
	// file system, since a restart would give nothing back. Default 64 MiB,
	// 10,000.
	MinBytes, MinInodes int64
	// MinShare is the part of a file system's (pod's) growth below which a
	// container is not blamed for it. Default 0.2; an offender stays one down
	// to half of it.
	MinShare float64
	// MinRate is the growth in bytes per second below which a container is
	// not blamed for a file system. Default 64 KiB/s, 5.6 GB a day. For inodes
	// it is one file for every 4 KiB: 16 a second.
	MinRate float64
}

// reserves are those of the file system that is mounted there.
func (p Policy) reserves(mount string) Reserves {
	if r, own := p.Filesystems[mount]; own {
		return r
	}
	return Reserves{p.Reserve, p.InodeReserve}
}

// DefaultPolicy is what a platform engineer would keep.
func DefaultPolicy() Policy {
	return Policy{
		Reserve:        Reserve{Percent: 15},
		InodeReserve:   Reserve{Percent: 5},
		Horizon:        30 * time.Minute,
		Sustain:        5 * time.Second,
		Startup:        time.Second,
		StartupSustain: time.Minute,
		Calm:           time.Minute,
		MinBytes:       64 << 20,
		MinInodes:      10_000,
		MinShare:       0.2,
		MinRate:        64 << 10,
	}
}

// Validate tells everything that is wrong with p.
func (p Policy) Validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	check(p.Horizon > 0, "horizon must be above 0")
	check(p.Sustain > 0 && p.Sustain < seriesWindow, "sustain must be above 0 and below 5m")
	check(p.Startup >= 0 && p.StartupSustain >= 0 && p.StartupSustain < seriesWindow, "startup must not be below 0, nor startup sustain, which must be below 5m")
	check(p.Calm >= 0, "calm must not be below 0")
	check(p.MinBytes >= 0 && p.MinInodes >= 0, "the least amount held must not be below 0")
	check(p.MinShare >= 0 && p.MinShare <= 1, "the least share must be from 0 to 1")
	check(p.MinRate >= 0, "the least rate must not be below 0")
	reserves := []Reserve{p.Reserve, p.InodeReserve}
	for _, r := range p.Filesystems {
		reserves = append(reserves, r.Bytes, r.Inodes)
	}
	for _, r := range reserves {
		check(r.Amount >= 0 && r.Percent >= 0 && r.Percent < 100, "a reserve must be from 0% to below 100%, or an amount")
	}
	return errors.Join(errs...)
}
