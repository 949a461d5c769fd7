// Command host is the smallest program that hosts the confined process.
package main

import (
	"os"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

func main() { os.Exit(pull.Main()) }
