// Package unpack turns a stream of bytes that nobody vouches for yet into
// files below one folder, and into nothing else.
//
// A Tree is that folder, held by its descriptor. Every name is resolved by the
// kernel with openat2 below it, through no link (Linux ≥ 5.6), and is made
// exclusively, so nothing is ever written through, over or beside what is
// there. Links are made only where they cannot lead out, whatever lies on
// their way. Owners, times, extended attributes and the setuid, setgid and
// sticky bits are not taken over; devices, FIFOs and sockets are refused.
//
// Bytes, files and the ratio of unpacked to packed are bounded while they are
// written. What was made is listed with a digest of each file, taken as the
// bytes went by. After an error the folder holds what came before it; the
// caller throws it away.
package unpack
