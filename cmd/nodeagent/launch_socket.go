package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
)

// binariesPath is below which the local socket answers for launched binaries.
const binariesPath = "/v1/binaries"

// launched is what the socket tells of one Binary.
type launched struct {
	Name   string                         `json:"name"`
	Source string                         `json:"source"`
	Binary *v1alpha1.Binary               `json:"binary,omitempty"`
	Status *v1alpha1.BinaryInstanceStatus `json:"status"`
	Memory *int64                         `json:"memoryBytes,omitempty"`
	CPU    *float64                       `json:"cpuSeconds,omitempty"`
}

func tell(i binlaunch.Instance) launched {
	out := launched{Name: i.Name, Source: i.Source, Binary: i.Wanted, Status: &i.Status}
	if s, ok := i.Stats(); ok {
		out.Memory = s.Memory
		if s.CPU != nil {
			used := s.CPU.Seconds()
			out.CPU = &used
		}
	}
	return out
}

// handle adds the socket's paths. An answer other than 200 is one line of text.
func (l *launchParts) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET "+binariesPath, func(w http.ResponseWriter, _ *http.Request) {
		all := []launched{}
		for _, i := range l.supervisor.Instances() {
			all = append(all, tell(i))
		}
		l.answer(w, all)
	})
	mux.HandleFunc("POST "+binariesPath, l.serveLaunch)
	mux.HandleFunc("GET "+binariesPath+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		if i, ok := l.find(w, r); ok {
			l.answer(w, tell(i))
		}
	})
	mux.HandleFunc("DELETE "+binariesPath+"/{name}", l.serveStop)
	mux.HandleFunc("GET "+binariesPath+"/{name}/output", l.serveOutput)
}

func (l *launchParts) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		l.log.Debug("answer not delivered", "err", err)
	}
}

func (l *launchParts) find(w http.ResponseWriter, r *http.Request) (binlaunch.Instance, bool) {
	name := r.PathValue("name")
	i, ok := l.supervisor.Instance(name)
	if !ok {
		http.Error(w, fmt.Sprintf("there is no binary %s on this node: nodeagent ps lists them", name), http.StatusNotFound)
	}
	return i, ok
}

// mostOfSpec bounds what is read of a spec.
const mostOfSpec = 1 << 20

func (l *launchParts) serveLaunch(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostOfSpec))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all, err := source.Parse(text)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("want one Binary, not %d", len(all))
	}
	if err != nil {
		http.Error(w, oneLine(err), http.StatusBadRequest)
		return
	}
	b := all[0]
	if i, there := l.supervisor.Instance(b.Name); there && i.Source != fromLaunched && i.Wanted != nil {
		http.Error(w, fmt.Sprintf("the name %s is taken: %s", b.Name, l.where(i)), http.StatusConflict)
		return
	}
	if err := l.save(b); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	l.answer(w, launched{Name: b.Name, Source: fromLaunched, Binary: b})
}

// where says whose a Binary is that cannot be changed from here.
func (l *launchParts) where(i binlaunch.Instance) string {
	switch i.Source {
	case fromCluster:
		return "it is a Binary of the cluster (kubectl get binary " + i.Name + ")"
	case fromFolder:
		return "it is in a file in " + l.folder.Path
	}
	return "it was launched here"
}

func (l *launchParts) serveStop(w http.ResponseWriter, r *http.Request) {
	i, ok := l.find(w, r)
	if !ok {
		return
	}
	if i.Source != fromLaunched {
		http.Error(w, fmt.Sprintf("cannot stop %s from here: %s: delete it there", i.Name, l.where(i)), http.StatusConflict)
		return
	}
	if err := l.forget(i.Name); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	l.rescan()
	l.answer(w, tell(i))
}

// serveOutput sends what a task wrote, and with ?follow=true what it writes.
func (l *launchParts) serveOutput(w http.ResponseWriter, r *http.Request) {
	i, ok := l.find(w, r)
	if !ok {
		return
	}
	out, err := i.Output(r.URL.Query().Get("follow") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	// Who follows may do so for days; the reader ends with the request.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	stop := context.AfterFunc(r.Context(), func() { _ = out.Close() })
	defer stop()
	defer out.Close()
	if _, err := io.Copy(flusher{w}, out); err != nil && r.Context().Err() == nil {
		l.log.Debug("output not delivered", "err", err)
	}
}

// flusher sends each piece at once.
type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.w).Flush()
}
