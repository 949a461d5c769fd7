// Package plan is what the agent tells a keeper, and what a keeper writes down.
//
// Prelude, Plan and Handed together are complete: every mount, limit and filter
// is spelt out, so that the keeper decides nothing and stays small. They are
// encoded by hand, because encoding/json alone would add a third to what every
// keeper holds resident (docs/decisions/0011-process-model.md).
package plan
