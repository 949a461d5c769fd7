package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// socketOptions are the flags of all commands that ask the agent.
type socketOptions struct{ config string }

func (o *socketOptions) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.config, "config", defaultConfigFile, "configuration `file`; without the flag it may be missing")
}

func (o *socketOptions) socket(cmd *cobra.Command) (string, error) {
	cfg, err := loadConfig(o.config, cmd.Flags().Changed("config"))
	if err != nil {
		return "", err
	}
	return cfg.Socket, nil
}

func newPsCommand() *cobra.Command {
	o, output := socketOptions{}, ""
	cmd := &cobra.Command{
		Use: "ps", Short: "List the binaries that are launched on this node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"table", "json"}, output) {
				return fmt.Errorf("cannot print %q: want table or json", output)
			}
			socket, err := o.socket(cmd)
			if err != nil {
				return err
			}
			var all []launched
			if err := askLaunch(cmd.Context(), socket, http.MethodGet, binariesPath, nil, &all); err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(all)
			}
			return writeLaunched(cmd.OutOrStdout(), all, time.Now())
		},
	}
	o.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`format`: table or json")
	return cmd
}

// writeLaunched prints one line for each Binary.
func writeLaunched(out io.Writer, all []launched, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tSINCE\tPORTS\tPID\tRESTARTS\tMEMORY\tFROM\tMESSAGE")
	for _, l := range all {
		s := l.Status
		since, pid, memory := "", "", ""
		if s.Since != nil {
			since = duration.HumanDuration(now.Sub(s.Since.Time))
		}
		if s.Pid != 0 {
			pid = fmt.Sprint(s.Pid)
		}
		if l.Memory != nil {
			memory = whole(*l.Memory)
		}
		message := s.Message
		if s.Next != nil {
			message = strings.TrimPrefix(fmt.Sprintf("%s; the changed one is %s %s", message, s.Next.State, s.Next.Message), "; ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.Name, s.State, since, s.Endpoints, pid, s.Restarts, memory, l.Source, message)
	}
	return w.Flush()
}

// whole is an amount in Mi, below one in Ki.
func whole(bytes int64) string {
	unit := 20
	if bytes < 1<<20 {
		unit = 10
	}
	return resource.NewQuantity(bytes>>unit<<unit, resource.BinarySI).String()
}

func newInspectCommand() *cobra.Command {
	o := socketOptions{}
	cmd := &cobra.Command{
		Use: "inspect NAME", Short: "Tell all that is known of a launched binary, as YAML", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := o.socket(cmd)
			if err != nil {
				return err
			}
			var l launched
			if err := askLaunch(cmd.Context(), socket, http.MethodGet, binariesPath+"/"+url.PathEscape(args[0]), nil, &l); err != nil {
				return err
			}
			text, err := yaml.Marshal(l)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	o.add(cmd)
	return cmd
}

func newLogsCommand() *cobra.Command {
	o, follow := socketOptions{}, false
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Print what a launched binary writes to its output", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := o.socket(cmd)
			if err != nil {
				return err
			}
			path := binariesPath + "/" + url.PathEscape(args[0]) + "/output"
			if follow {
				path += "?follow=true"
			}
			answer, err := openAnswer(cmd.Context(), socket, http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			defer answer.Close()
			_, err = io.Copy(cmd.OutOrStdout(), answer)
			if cmd.Context().Err() != nil {
				return nil // who follows ends it by Ctrl-C
			}
			return err
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	return cmd
}

func newStopCommand() *cobra.Command {
	o, wait := socketOptions{}, time.Duration(0)
	cmd := &cobra.Command{
		Use: "stop NAME", Short: "Stop what was launched on this node by nodeagent launch, for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := o.socket(cmd)
			if err != nil {
				return err
			}
			path := binariesPath + "/" + url.PathEscape(args[0])
			if err := askLaunch(cmd.Context(), socket, http.MethodDelete, path, nil, nil); err != nil {
				return err
			}
			for until := time.Now().Add(wait); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				err := askLaunch(cmd.Context(), socket, http.MethodGet, path, nil, &launched{})
				if err != nil && strings.Contains(err.Error(), "there is no binary") {
					return nil
				}
			}
			if wait == 0 {
				return nil
			}
			return fmt.Errorf("%s has not ended after %s: nodeagent ps tells how it stands", args[0], wait)
		},
	}
	o.add(cmd)
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait until nothing of it is left; 0: not at all")
	return cmd
}
