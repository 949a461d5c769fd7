// Package restart replaces a workload's pods through the Kubernetes API and
// proves it afterwards.
//
// A restart is an object in the API, the Restart, and its name is the lock:
// one per workload, by the API server's own uniqueness. What is meant and what
// came of it stand in the object, so any agent can finish what another began.
//
// The way through it: a Request becomes a Restart (request.go); the controller
// claims it, reads the world around it, and asks the pure function Next for
// the one step to take; then it takes that step and reads again.
//
// Beside that, an agent keeps two taints of its own node, one while its disk
// fills (nodetaint.go) and one while its label says public (roletaint.go); how
// both are written and fenced is in taint.go and taint_fence.go.
package restart
