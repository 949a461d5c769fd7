package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

// recordOptions say where samples are recorded to.
type recordOptions struct {
	file  string
	limit string
}

func (o *recordOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.file, "record", "", "record the samples that verdicts are made of to this `file`, for nodeagent replay; what stands there is kept as FILE.1")
	cmd.Flags().StringVar(&o.limit, "record-limit", "64Mi", "`size` at which the recording ends; watching goes on")
}

// open is nil where nothing is to be recorded.
func (o *recordOptions) open(log *slog.Logger) (*disk.Recorder, error) {
	if o.file == "" {
		return nil, nil
	}
	limit, err := resource.ParseQuantity(o.limit)
	if err != nil {
		return nil, fmt.Errorf("cannot use --record-limit %q: want a quantity such as 64Mi", o.limit)
	}
	return disk.NewRecorder(o.file, limit.Value(), log.With("part", "record"))
}
