package runtime

import (
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestToReload(t *testing.T) {
	everything, c1 := reload{all: true}, reload{one: ref{"k8s.io", "c1"}}
	for _, c := range []struct {
		name    string
		topic   string
		payload any
		want    reload
		matters bool
	}{
		{"container created", "/containers/create", &eventsapi.ContainerCreate{ID: "c1"}, c1, true},
		{"container updated", "/containers/update", &eventsapi.ContainerUpdate{ID: "c1"}, c1, true},
		{"container deleted", "/containers/delete", &eventsapi.ContainerDelete{ID: "c1"}, c1, true},
		{"task created", "/tasks/create", &eventsapi.TaskCreate{ContainerID: "c1"}, c1, true},
		{"task started", "/tasks/start", &eventsapi.TaskStart{ContainerID: "c1"}, c1, true},
		{"task ended", "/tasks/exit", &eventsapi.TaskExit{ContainerID: "c1", ID: "c1"}, c1, true},
		{"exec ended", "/tasks/exit", &eventsapi.TaskExit{ContainerID: "c1", ID: "probe"}, reload{}, false},
		{"task deleted", "/tasks/delete", &eventsapi.TaskDelete{ContainerID: "c1"}, c1, true},
		{"exec added", "/tasks/exec-added", &eventsapi.TaskExecAdded{ContainerID: "c1"}, reload{}, false},
		{"image created", "/images/create", &eventsapi.ImageCreate{Name: "c1"}, reload{}, false},
		{"no id", "/containers/create", &eventsapi.ContainerCreate{}, everything, true},
		{"a type never heard of", "/containers/create", &anypb.Any{TypeUrl: "x/y", Value: []byte{1}}, everything, true},
		{"garbage of a known type", "/tasks/start", &anypb.Any{TypeUrl: "containerd.events.TaskStart", Value: []byte{0xff, 0xff}}, everything, true},
		{"garbage of no concern", "/images/create", &anypb.Any{TypeUrl: "x/y"}, everything, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			payload, ok := c.payload.(typeurl.Any)
			if !ok {
				var err error
				if payload, err = typeurl.MarshalAny(c.payload); err != nil {
					t.Fatal(err)
				}
			}
			got, matters := toReload(&events.Envelope{Namespace: "k8s.io", Topic: c.topic, Event: payload})
			if matters != c.matters || (matters && got != c.want) {
				t.Errorf("toReload = %+v, %t; want %+v, %t", got, matters, c.want, c.matters)
			}
		})
	}
	for _, broken := range []*events.Envelope{nil, {}, {Topic: "/tasks/start"}} {
		if got, matters := toReload(broken); !matters || !got.all {
			t.Errorf("toReload(%+v) = %+v, %t; want everything", broken, got, matters)
		}
	}
}

// containerd's own filters are the oracle for the expression that it is sent.
func TestEventFilters(t *testing.T) {
	filter, err := filters.ParseAll(eventFilters([]string{"k8s.io", "moby"})...)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		namespace, topic string
		want             bool
	}{
		{"k8s.io", "/containers/create", true},
		{"k8s.io", "/containers/delete", true},
		{"moby", "/tasks/exit", true},
		{"moby", "/tasks/start", true},
		{"default", "/tasks/start", false},
		{"k8s", "/tasks/start", false},
		{"k8s.io", "/tasks/exec-started", false},
		{"k8s.io", "/tasks/oom", false},
		{"k8s.io", "/snapshot/prepare", false},
	} {
		if got := filter.Match(&events.Envelope{Namespace: c.namespace, Topic: c.topic}); got != c.want {
			t.Errorf("%s %s passes: %t, want %t", c.namespace, c.topic, got, c.want)
		}
	}
}

func TestBacklogCoalesces(t *testing.T) {
	one := func(id string) reload { return reload{one: ref{"k8s.io", id}} }
	b := newBacklog()
	for range 1000 {
		b.add(one("a"))
		b.add(one("b"))
	}
	<-b.wake
	select {
	case <-b.wake:
		t.Error("a burst woke its reader twice")
	default:
	}
	if refs, all := b.take(); all || len(refs) != 2 {
		t.Errorf("take = %v, %t; want a and b", refs, all)
	}
	if refs, all := b.take(); all || len(refs) != 0 {
		t.Errorf("the second take = %v, %t; want nothing", refs, all)
	}
	b.add(reload{all: true})
	b.add(one("a"))
	if refs, all := b.take(); !all || len(refs) != 0 {
		t.Errorf("take = %v, %t; want all and nothing more", refs, all)
	}
	for i := range maxBacklog + 1 {
		b.add(one(string(rune('a' + i))))
	}
	if refs, all := b.take(); !all || len(refs) != 0 {
		t.Errorf("take of more than %d = %d, %t; want all", maxBacklog, len(refs), all)
	}
}
