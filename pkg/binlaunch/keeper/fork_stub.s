// The compiler wants an assembly file in a package that has functions without
// a body (fork_runtime.go).
