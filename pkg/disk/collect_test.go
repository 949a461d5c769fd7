package disk

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// BenchmarkScrape is of a node with 250 containers, as a Prometheus asks for it.
func BenchmarkScrape(b *testing.B) {
	s := newStage()
	for i := range 250 {
		s.add(container(fmt.Sprintf("web-%d", i), fmt.Sprintf("0b6c1f0e-6a4b-4c39-9f0c-%012d", i), "app", fmt.Sprint(i)), still(100))
	}
	o := s.options(b)
	watch(b, o)
	reg := o.Registerer.(*prometheus.Registry)
	h := promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg})
	ask := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	ask.Header.Set("Accept-Encoding", "gzip")
	time.Sleep(3 * time.Second)
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, ask)
		if w.Body.Len() < 4000 {
			b.Fatal(w.Body.Len())
		}
	}
}
