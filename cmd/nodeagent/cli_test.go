package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/plugin"
)

// TestCLIReference holds docs/cli.md to what the commands say of themselves;
// `make generate` runs it with -update.
func TestCLIReference(t *testing.T) {
	const path = "../../docs/cli.md"
	var page strings.Builder
	page.WriteString("<!-- Generated from cmd/nodeagent by make generate; change it there. -->\n# The commands\n\n" +
		"Each ends with exit code 0, or with 1 and the reason in one line on standard error; restart has more of them. " +
		"`nodeagent completion bash` (zsh, fish) prints what makes the shell complete them.\n")
	for _, cmd := range newRootCommand().Commands() {
		describeCommand(&page, cmd)
	}
	if *update {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page.String() {
		t.Error("docs/cli.md is not what the commands say: run make generate and commit what it changed")
	}
}

func describeCommand(page *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(page, "\n## %s\n", cmd.UseLine())
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(page, "%s\n", strings.TrimSuffix(text, ".")+".")
	if flags := cmd.NonInheritedFlags().FlagUsages(); flags != "" {
		fmt.Fprintf(page, "```\n%s```\n", flags)
	}
	if cmd.Example != "" {
		fmt.Fprintf(page, "```\n%s\n```\n", cmd.Example)
	}
	if cmd.Name() == "restart" {
		page.WriteString("| exit code | |\n|---|---|\n")
		for code, means := range plugin.ExitCodes() {
			fmt.Fprintf(page, "| %d | %s |\n", code, means)
		}
	}
}
