// Package source tells what Binaries are wanted on this node: those in the API
// server (Cluster), and those in a folder of files (Folder), which is also how
// what was launched from the command line is kept. Both tell the whole set each
// time. Cluster writes back how they stand, as one BinaryInstance each.
package source
