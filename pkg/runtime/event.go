package runtime

import (
	"fmt"
	"strings"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// ref names one container on this node.
type ref struct{ namespace, id string }

// reload is what an event, or several of them, make necessary: nothing, a new
// look at some containers, or at all of them.
type reload struct {
	one ref
	all bool
}

// eventFilters asks containerd for no more than what changes a Container, of
// the given namespaces. Not for exec: each exec probe would send three events.
func eventFilters(namespaces []string) []string {
	var filters []string
	for _, ns := range namespaces {
		filters = append(filters, fmt.Sprintf(
			`namespace==%q,topic~="^/(containers/(create|update|delete)|tasks/(create|start|exit|delete))$"`, ns))
	}
	return filters
}

// toReload tells what to look at again after an event. What the event says of
// the container is not used: when it is read, that may be over already.
func toReload(envelope *events.Envelope) (reload, bool) {
	if envelope == nil || envelope.Event == nil {
		return reload{all: true}, true
	}
	payload, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		// Something of ours happened to a container that cannot be told.
		return reload{all: true}, concerns(envelope.Topic)
	}
	var id string
	switch e := payload.(type) {
	case *eventsapi.ContainerCreate:
		id = e.GetID()
	case *eventsapi.ContainerUpdate:
		id = e.GetID()
	case *eventsapi.ContainerDelete:
		id = e.GetID()
	case *eventsapi.TaskCreate:
		id = e.GetContainerID()
	case *eventsapi.TaskStart:
		id = e.GetContainerID()
	case *eventsapi.TaskDelete:
		id = e.GetContainerID()
	case *eventsapi.TaskExit:
		// Every process that was put in by exec ends with one too, and under
		// its own id: only the first process's end changes the container.
		if e.GetID() != e.GetContainerID() {
			return reload{}, false
		}
		id = e.GetContainerID()
	default:
		return reload{}, false
	}
	if id == "" || envelope.Namespace == "" {
		return reload{all: true}, true
	}
	return reload{one: ref{envelope.Namespace, id}}, true
}

func concerns(topic string) bool {
	return strings.HasPrefix(topic, "/containers/") || strings.HasPrefix(topic, "/tasks/")
}
