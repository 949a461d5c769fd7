package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// cached returns the cache's folder called key, which fill makes if it is not
// there. A folder appears in the cache whole or not at all: fill works in a
// temporary one. needs is a file by which a whole folder is known.
func cached(ctx context.Context, cache, key, needs string, p *progress, fill func(temp string) error) (string, error) {
	dir := filepath.Join(cache, key)
	if isWhole(dir, needs) {
		return dir, nil
	}
	unlock, err := lock(ctx, "cache "+key, p)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isWhole(dir, needs) {
		return dir, nil // another lab command just made it
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache: %w", err)
	}
	temp := filepath.Join(cache, ".new-"+key)
	// What a killed command left: nobody works on it, as we hold the lock.
	if err := os.RemoveAll(temp); err != nil {
		return "", fmt.Errorf("cannot clear the cache: %w", err)
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return "", fmt.Errorf("cannot make a folder in the cache: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := fill(temp); err != nil {
		return "", err
	}
	if !isWhole(temp, needs) {
		return "", fmt.Errorf("cannot cache %s: it was made, but has no %s", key, needs)
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("cannot clear the cache: %w", err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return "", fmt.Errorf("cannot put %s into the cache: %w", key, err)
	}
	return dir, nil
}

func isWhole(dir, needs string) bool {
	_, err := os.Stat(filepath.Join(dir, needs))
	return err == nil
}

// newestCached finds the latest whole folder of the cache whose key starts
// with name.
func newestCached(cache, name, needs string) (string, bool) {
	found, err := filepath.Glob(filepath.Join(cache, name+"-[v0-9]*"))
	if err != nil {
		return "", false
	}
	var newest string
	var when time.Time
	for _, dir := range found {
		info, err := os.Stat(filepath.Join(dir, needs))
		if err == nil && info.ModTime().After(when) {
			newest, when = dir, info.ModTime()
		}
	}
	return newest, newest != ""
}
