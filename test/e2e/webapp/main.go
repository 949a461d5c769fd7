// Command webapp is the workload of the stories and of the demo: a web server
// that shuts down gracefully and can be told to leak, and a client that never
// stops asking and counts what failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "webapp: %v\n", err)
		if code, ok := errors.AsType[exitCode](err); ok {
			os.Exit(int(code))
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want serve or client")
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	case "client":
		return runClient(ctx, args[1:])
	}
	return fmt.Errorf("want serve or client, not %q", args[0])
}
