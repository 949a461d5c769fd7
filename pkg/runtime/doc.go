// Package runtime knows who runs on this node. It asks containerd for all
// containers of the configured namespaces, then follows containerd's events,
// and asks for all of them again after every reconnect, so that an event that
// was lost is made good. The API server is asked nothing.
//
// What it hands out are Container values. They flow to package disk, and
// nothing flows back.
package runtime
