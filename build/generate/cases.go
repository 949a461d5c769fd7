package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

const (
	casesBegin = "<!-- Generated from restart.Cases by make generate; change it there. -->\n"
	casesEnd   = "<!-- The end of what is generated. -->\n"
)

// cases writes the table of kinds and situations into docs/restart.md.
func cases(root string) ([]byte, error) {
	page, err := os.ReadFile(filepath.Join(root, "docs/restart.md"))
	if err != nil {
		return nil, err
	}
	before, rest, begins := bytes.Cut(page, []byte(casesBegin))
	_, after, ends := bytes.Cut(rest, []byte(casesEnd))
	if !begins || !ends {
		return nil, errors.New("docs/restart.md does not say where its table begins and ends")
	}
	out := bytes.NewBuffer(bytes.Clone(before))
	out.WriteString(casesBegin + "| kind | situation | what happens | clients see | played by |\n|---|---|---|---|---|\n")
	for _, c := range restart.Cases() {
		played := strings.Join(slices.Concat(c.Stories, c.Lab), ", ")
		if c.NotOnLab != "" {
			played += " (not on the cluster: " + c.NotOnLab + ")"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", c.Kind, c.Situation, c.Happens, c.Clients, played)
	}
	out.WriteString(casesEnd)
	out.Write(after)
	return out.Bytes(), nil
}
