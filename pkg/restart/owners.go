package restart

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ownersRetry is how long after a question that failed a pod's owner is asked
// for again.
const ownersRetry = 30 * time.Second

// APIMetricTable lists the metrics about the API itself and what it says of pods.
func APIMetricTable() []Metric {
	return []Metric{
		ownerInfo:    {"nodeagent_pod_owner_info", "gauge", "Always 1; the labels tell the workload that would be restarted for a pod that is, or was, about to fill a disk. The series goes with the pod.", []string{"namespace", "pod", "uid", "owner_kind", "owner"}},
		apiReachable: {"nodeagent_api_reachable", "gauge", "Whether the API server answered when this node's pods were last asked for: 1 or 0. Absent until it was asked once.", nil},
	}
}

const (
	ownerInfo = iota
	apiReachable
)

// Owners tells, as a metric, whose the pods are that are about to fill a disk,
// so that an alert can name the workload. It asks the API once a pod, two
// requests, and never for a pod that is no danger.
type Owners struct {
	client client.Reader
	log    *slog.Logger
	desc   *prometheus.Desc
	reach  *prometheus.Desc

	mu        sync.Mutex
	known     map[Pod]owner
	failed    map[Pod]time.Time
	reachable *bool
}

// NewOwners makes an Owners and registers its metrics.
func NewOwners(c client.Reader, reg prometheus.Registerer, log *slog.Logger) *Owners {
	t := APIMetricTable()
	o := &Owners{
		client: c, log: log, known: make(map[Pod]owner), failed: make(map[Pod]time.Time),
		desc:  prometheus.NewDesc(t[ownerInfo].Name, t[ownerInfo].Help, t[ownerInfo].Labels, nil),
		reach: prometheus.NewDesc(t[apiReachable].Name, t[apiReachable].Help, nil, nil),
	}
	reg.MustRegister(o)
	return o
}

// Update asks for the owners of the pods in danger that are not known yet, and
// forgets the pods that are not there any more. There must be one caller.
func (o *Owners) Update(ctx context.Context, danger []Pod, there func(Pod) bool, now time.Time) {
	o.mu.Lock()
	for p := range o.known {
		if !there(p) {
			delete(o.known, p)
		}
	}
	for p := range o.failed {
		if !there(p) {
			delete(o.failed, p)
		}
	}
	var ask []Pod
	for _, p := range danger {
		_, known := o.known[p]
		if again, failed := o.failed[p]; p.UID != "" && !known && (!failed || !now.Before(again)) {
			ask = append(ask, p)
		}
	}
	o.mu.Unlock()
	for _, p := range ask {
		own, err := o.find(ctx, p)
		o.mu.Lock()
		if err == nil {
			o.known[p] = own
			delete(o.failed, p)
		} else {
			o.failed[p] = now.Add(ownersRetry)
		}
		o.mu.Unlock()
		if err != nil {
			o.log.Debug("cannot tell a pod's owner", "pod", p.Namespace+"/"+p.Name, "err", err)
		}
	}
}

func (o *Owners) find(ctx context.Context, p Pod) (owner, error) {
	pod, err := readPod(ctx, o.client, p)
	if err != nil {
		return owner{}, err
	}
	if pod == nil {
		return owner{}, errors.New("it is gone")
	}
	return findOwner(ctx, o.client, pod)
}

// Reached takes down whether the API server answered.
func (o *Owners) Reached(answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reachable = &answered
}

// Describe implements prometheus.Collector.
func (o *Owners) Describe(ch chan<- *prometheus.Desc) {
	ch <- o.desc
	ch <- o.reach
}

// Collect implements prometheus.Collector.
func (o *Owners) Collect(ch chan<- prometheus.Metric) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, own := range o.known {
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.GaugeValue, 1, p.Namespace, p.Name, p.UID, own.target.Kind, own.target.Name)
	}
	if o.reachable != nil {
		value := 0.0
		if *o.reachable {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(o.reach, prometheus.GaugeValue, value)
	}
}
