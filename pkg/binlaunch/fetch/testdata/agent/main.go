// Command agent fetches one file and is the confined process, too, as the real
// agent. Arguments: the store's folder, the URL, and whether its own file is
// taken away first.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

func main() {
	fetch.ChildMain()
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("fetched")
}

func run(dir, url, replaced string) error {
	if replaced == "true" {
		if err := os.Remove(os.Args[0]); err != nil {
			return err
		}
	}
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer s.Close()
	f, err := fetch.New(fetch.Options{Store: s, Environ: []string{}, Reserve: -1})
	if err != nil {
		return err
	}
	_, _, err = f.Get(context.Background(), []fetch.Artifact{{URL: url, Insecure: true}}, nil)
	return err
}
