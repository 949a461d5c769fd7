// Package plugin is what a person restarts a workload with: `nodeagent restart`
// and, under the name kubectl-restart, `kubectl restart`. It finds out what is
// meant, makes the same Restart that an agent would make, and follows it to its
// end. It replaces no pod itself: what an agent refuses is refused here too,
// and a person needs no right but the one to write Restarts.
//
//	arguments ─→ targets ─→ wishes ─→ Restart objects ─→ follow ─→ exit code
package plugin
