// Package reload restarts workloads whose ConfigMaps or Secrets changed. A
// workload asks for it by the annotation nodeagent.dev/reload.
//
//	workload ─→ references ─→ fingerprints ─→ compare with what was applied ─→ Restart (ConfigChange) ─→ applied
//
// ConfigMaps and Secrets are watched as metadata alone; the data of one is read
// when it changed and a workload asks for it, made into a fingerprint and
// dropped. What a workload was last started with stands, as fingerprints, in
// Secrets of the agent's own namespace, so that a change made while no agent
// ran is seen, and one without a difference in data is none. The Restart
// carries the fingerprint it was made for: whoever takes over finds it there
// and asks for no second.
//
// One agent of the cluster does it, the one that leads.
package reload
