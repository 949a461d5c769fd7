package runtime

import (
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestLogFolder(t *testing.T) {
	web := Container{Name: "app", Pod: Pod{Namespace: "shop", Name: "web", UID: "u-1"}}
	const byConvention = "/var/log/pods/shop_web_u-1/app"
	for _, c := range []struct {
		name      string
		container Container
		extension string
		want      string
	}{
		{"as the CRI plugin says", web, `{"Version":"v1","Metadata":{"ID":"1","LogPath":"/data/logs/shop_web_u-1/app/0.log"}}`, "/data/logs/shop_web_u-1/app"},
		{"no metadata", web, "", byConvention},
		{"no JSON", web, "\x00", byConvention},
		{"another version", web, `{"Version":"v2","Metadata":{"LogPath":"/data/logs/shop_web_u-1/app/0.log"}}`, byConvention},
		{"another pod's folder", web, `{"Version":"v1","Metadata":{"LogPath":"/var/log/pods/shop_web_u-2/app/0.log"}}`, byConvention},
		{"a folder that is not its own", web, `{"Version":"v1","Metadata":{"LogPath":"/tmp/0.log"}}`, byConvention},
		{"no log", web, `{"Version":"v1","Metadata":{"LogPath":""}}`, byConvention},
		{"a sandbox", Container{Sandbox: true, Pod: web.Pod}, "", ""},
		{"outside Kubernetes", Container{ID: "x"}, "", ""},
		{"a hostile name", Container{Name: "../../etc", Pod: web.Pod}, "", ""},
		{"the folder above", Container{Name: "..", Pod: web.Pod}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			record := &containersapi.Container{Extensions: map[string]*anypb.Any{}}
			if c.extension != "" {
				record.Extensions[extensionMetadata] = &anypb.Any{Value: []byte(c.extension)}
			}
			if got := logFolder(c.container, record); got != c.want {
				t.Errorf("logFolder = %q, want %q", got, c.want)
			}
		})
	}
}
