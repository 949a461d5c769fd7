package restart

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Without the CRD every request fails, and says so rather than of races.
func TestRequestWithoutCRD(t *testing.T) {
	missing := &apierrors.StatusError{ErrStatus: metav1.Status{
		Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource",
	}}
	f := &faulty{
		get: func(_ client.ObjectKey, o client.Object) error {
			if pod, ok := o.(*corev1.Pod); ok {
				*pod = testPod("web-0", "0", true)
				return nil
			}
			return missing
		},
		create: func(client.Object) error { return missing },
	}
	log := slog.New(slog.DiscardHandler)
	q := NewRequester(f, Options{Node: nodeA}, NewEvents(f, nodeA, time.Now, log), log)
	_, err := q.Request(t.Context(), Request{Pod: Pod{Namespace: "shop", Name: "web-0"}, Reason: v1alpha1.ReasonDiskFill})
	if err == nil || !strings.Contains(err.Error(), "could not find the requested resource") {
		t.Errorf("error %v", err)
	}
}
