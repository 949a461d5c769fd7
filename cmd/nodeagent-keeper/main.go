// Command nodeagent-keeper stays with one launched task: see package keeper.
// The agent carries it and starts it; nobody runs it by hand.
package main

import (
	"os"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper"
)

func main() { os.Exit(keeper.Main()) }
