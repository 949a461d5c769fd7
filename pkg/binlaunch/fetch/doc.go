// Package fetch brings what a spec names by URL into the store, or says why
// not. What is fetched is hostile until its digest or its signature is the one
// that was asked for, and nobody finds it in the store before.
//
//	Artifacts ─→ plan ─→ store? ─→ confined process ─→ verdict ─→ store
//	(pure)                         (package pull)      (pure)
//
// The process that talks to servers and unpacks is this program once more,
// without rights: a user of its own, no capabilities, no_new_privs, its own
// mount, pid, ipc and uts namespaces, a root folder with nothing in it but the
// folder to fill and the few files that name resolution and TLS need, Landlock
// on top where the kernel has it, bounded memory. All that is set before its
// first instruction, but Landlock and limits, which it sets before it reads
// what to do. It reports digests; whether they are the right ones is decided
// here.
//
// Two calls for the same content at once are one fetch, whatever the URLs: if
// the first's sources fail, the second's are tried. What is known by its
// digest is asked of no server when the store has it; what is not is asked for
// by ETag, and the last known is used while its server is away.
package fetch
