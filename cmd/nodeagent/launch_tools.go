package main

import (
	"errors"
	"log/slog"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
)

func launchTools(*v1alpha1.Config, *slog.Logger) (binlaunch.Fetcher, binlaunch.Launcher, error) {
	return nil, nil, errors.New("not wired yet")
}
