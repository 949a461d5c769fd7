// Package pull is the half of fetching that touches what strangers made: it
// talks to servers and unpacks what they send. It runs in a process of its
// own, without rights, in a folder that is all it can write (see package
// fetch, which starts it), and imports little, so that any small static
// program can host it.
//
// Main reads one Job from standard input, and answers on standard output with
// Messages, one JSON object a line: progress, then what lies in the folder,
// then a report for each artifact, or the failure that ended it. It judges
// nothing: whether the digests and signatures that it found are the right ones
// is decided by who started it. It ends when standard input does, that is,
// with its parent.
//
// Each artifact is one pass: response body → hash → queue → decompress →
// unpack and hash each file. A body that breaks off is taken up where it
// broke, from another mirror if need be, without those behind it noticing.
package pull
