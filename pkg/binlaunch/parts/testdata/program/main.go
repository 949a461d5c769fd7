// Command program is what the tests launch, and the confined fetcher and the
// keeper of those launches: one static program, as nodeagent itself is.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper"
)

func main() {
	fetch.ChildMain()
	switch {
	case os.Args[0] == "nodeagent-keeper":
		os.Exit(keeper.Main())
	case len(os.Args) > 2 && os.Args[1] == "serve":
		serve(os.Args[2])
	case len(os.Args) > 1 && os.Args[1] == "hog":
		hog()
	case len(os.Args) > 1 && os.Args[1] == "shut":
		shut()
	}
}

// shut tells how this process is shut in, and waits for its end.
func shut() {
	var stack syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_STACK, &stack)
	interfaces, _ := net.Interfaces()
	status, _ := os.ReadFile("/proc/self/status")
	_, cores, _ := strings.Cut(string(status), "Cpus_allowed_list:")
	cores, _, _ = strings.Cut(cores, "\n")
	fmt.Printf("user %d:%d, stack %d:%d, interfaces %d, cores %s\n", os.Getuid(), os.Getgid(), stack.Cur, stack.Max, len(interfaces), strings.TrimSpace(cores))
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	<-done
}

func serve(version string) {
	var l net.Listener
	var err error
	// As go-systemd reads it, and with it node_exporter's --web.systemd-socket.
	if pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")); pid == os.Getpid() && os.Getenv("LISTEN_FDS") == "1" {
		l, err = net.FileListener(os.NewFile(3, os.Getenv("LISTEN_FDNAMES")))
	} else {
		l, err = net.Listen("tcp", ":"+os.Getenv("PORT0"))
	}
	if err != nil {
		fmt.Println("cannot listen:", err)
		os.Exit(3)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(version, "sick") && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, version)
	})}
	fmt.Println("serves", version, "as", os.Getuid(), "in", os.Getenv("MESOS_SANDBOX"))
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	go func() { _ = srv.Serve(l) }()
	<-done
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = srv.Shutdown(ctx)
}

// hog takes memory until it is killed.
func hog() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		all = append(all, b)
		if len(all) > 1<<14 {
			os.Exit(4)
		}
	}
}
