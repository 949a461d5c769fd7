package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Environment variables that move the lab's folders.
const (
	envLabDir   = "NODEAGENT_LAB_DIR"
	envCacheDir = "NODEAGENT_LAB_CACHE"
	envPartsDir = "NODEAGENT_LAB_PARTS"
)

// defaultLabDir holds all state of the running lab; down removes it.
const defaultLabDir = "/var/lib/nodeagent-lab"

// paths tells where the lab keeps what. Everything below dir belongs to one
// run of the lab and goes with it; cache outlives it.
type paths struct {
	dir   string // state of the running lab
	cache string // built and downloaded parts
}

func pathsFromEnv() (paths, error) {
	p := paths{dir: os.Getenv(envLabDir), cache: os.Getenv(envCacheDir)}
	if p.dir == "" {
		p.dir = defaultLabDir
	}
	if p.cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return paths{}, fmt.Errorf("cannot choose the cache folder: %w; set %s", err, envCacheDir)
		}
		p.cache = filepath.Join(home, ".cache", "nodeagent-lab")
	}
	for _, d := range []*string{&p.dir, &p.cache} {
		abs, err := filepath.Abs(*d)
		if err != nil {
			return paths{}, fmt.Errorf("cannot make %s absolute: %w", *d, err)
		}
		*d = abs
	}
	if p.dir == "/" || filepath.Dir(p.dir) == "/" {
		return paths{}, fmt.Errorf("%s is %s: down removes that folder, so it must lie deeper than that", envLabDir, p.dir)
	}
	return p, nil
}

func (p paths) pki(name string) string        { return filepath.Join(p.dir, "pki", name) }
func (p paths) kubeconfig(user string) string { return filepath.Join(p.dir, "kubeconfig", user) }
func (p paths) adminKubeconfig() string       { return p.kubeconfig("admin") }
func (p paths) etcdData() string              { return filepath.Join(p.dir, "etcd") }
func (p paths) logs() string                  { return filepath.Join(p.dir, "logs") }
func (p paths) log(name string) string        { return filepath.Join(p.logs(), name+".log") }
func (p paths) auditLog() string              { return filepath.Join(p.logs(), "audit.log") }
func (p paths) pids() string                  { return filepath.Join(p.dir, "pids") }
func (p paths) partsRecord() string           { return filepath.Join(p.dir, "parts.json") }
func (p paths) nodes() string                 { return filepath.Join(p.dir, "nodes") }
func (p paths) node(n int) string             { return filepath.Join(p.nodes(), nodeName(n)) }
func (p paths) nodeDisk(n int) string         { return filepath.Join(p.node(n), "disk.img") }
func (p paths) nodeLogs(n int) string         { return filepath.Join(p.logs(), nodeName(n)) }
func (p paths) nodeSocket(n int) string       { return filepath.Join(p.node(n), "init.sock") }

func nodeName(n int) string { return "node-" + strconv.Itoa(n) }

// existingNodes lists the numbers of the nodes that have a folder, in order.
func (p paths) existingNodes() ([]int, error) {
	var found []int
	for n := 1; n <= maxNodes; n++ {
		if _, err := os.Stat(p.node(n)); err == nil {
			found = append(found, n)
		} else if !os.IsNotExist(err) {
			return nil, fmt.Errorf("cannot look for %s: %w", nodeName(n), err)
		}
	}
	return found, nil
}
