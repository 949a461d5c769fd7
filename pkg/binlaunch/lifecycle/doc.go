// Package lifecycle is the state machine that every launched task goes
// through. The table is data: the supervisor asks it what an event leads to,
// the tests walk it, and docs/launch/lifecycle.md is printed from it. Nothing
// here touches a process.
//
// A task is one attempt after the other to keep one program running. An update
// is two of them beside each other: the new one has to become Healthy before
// the old one is told Unwanted.
package lifecycle
