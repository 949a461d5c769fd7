package fetch

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/verify"
)

func TestPlan(t *testing.T) {
	sum, long := strings.Repeat("a1", 32), strings.Repeat("b2", 64)
	any256 := map[string]string{"*": sum}
	keys := map[string]verify.Key{"shop": {Name: "shop"}}
	for _, c := range []struct {
		name string
		a    []Artifact
		want string // of the first item: source path format strip; or the error after "!"
	}{
		{"a tarball", []Artifact{{URL: "https://h/x-{{os}}-{{ arch }}.tar.gz", SHA256: map[string]string{"amd64": "x", "arm64": sum}, Strip: 1}},
			"https://h/x-linux-arm64.tar.gz . tar.gz 1"},
		{"a raw file", []Artifact{{URL: "https://h/a/tool", SHA256: any256}}, "https://h/a/tool tool raw 0"},
		{"a packed file", []Artifact{{URL: "https://h/a/tool.gz", SHA256: any256}}, "https://h/a/tool.gz tool gz 0"},
		{"a query is no name", []Artifact{{URL: "https://h/tool?x=a.zip", SHA256: any256}}, "https://h/tool?x=a.zip tool raw 0"},
		{"raw by format", []Artifact{{URL: "https://h/tool.gz", SHA256: any256, Format: "raw"}}, "https://h/tool.gz tool.gz raw 0"},
		{"a path", []Artifact{{URL: "https://h/tool", SHA256: any256, Path: "./bin//{{arch}}/t"}}, "https://h/tool bin/arm64/t raw 0"},
		{"upper case and prefix", []Artifact{{URL: "https://h/t", SHA256: map[string]string{"*": "sha256:" + strings.ToUpper(sum)}}}, "https://h/t t raw 0"},
		{"sha512", []Artifact{{URL: "https://h/t", SHA512: map[string]string{"arm64": long}}}, "https://h/t t raw 0"},
		{"a signature", []Artifact{{URL: "https://h/t", Signature: &Signature{Key: "shop"}}}, "https://h/t t raw 0"},
		{"insecure", []Artifact{{URL: "http://h/t", Insecure: true}}, "http://h/t t raw 0"},
		{"oci by digest", []Artifact{{URL: "oci://h/r/x@sha256:" + sum}}, "oci://h/r/x@sha256:" + sum + " . tar.gz 0"},
		{"oci with a title", []Artifact{{URL: "oci://h/r:v1#t", SHA256: any256}}, "oci://h/r:v1#t t raw 0"},

		{"nothing", nil, "!nothing is named"},
		{"nobody vouches", []Artifact{{URL: "https://h/t"}}, "!insecure: true"},
		{"both", []Artifact{{URL: "https://h/t", SHA256: any256, Insecure: true}}, "!take one of them away"},
		{"not this architecture", []Artifact{{URL: "https://h/t", SHA256: map[string]string{"amd64": sum, "s390x": sum}}}, "!there is one for amd64, s390x"},
		{"a short digest", []Artifact{{URL: "https://h/t", SHA256: map[string]string{"*": "abc"}}}, "!64 hex digits"},
		{"no hex", []Artifact{{URL: "https://h/t", SHA256: map[string]string{"*": strings.Repeat("x", 64)}}}, "!64 hex digits"},
		{"an unknown placeholder", []Artifact{{URL: "https://h/{{version}}", SHA256: any256}}, "!only {{os}} and {{arch}}"},
		{"another scheme", []Artifact{{URL: "ftp://h/t", SHA256: any256}}, "!http, https, file and oci"},
		{"no scheme", []Artifact{{URL: "h/t", SHA256: any256}}, "!http, https, file and oci"},
		{"a mirror of another scheme", []Artifact{{URL: "https://h/t", Mirrors: []string{"git://h/t"}, SHA256: any256}}, "!http, https, file and oci"},
		{"no host", []Artifact{{URL: "https:///t", SHA256: any256}}, "!names no host"},
		{"a password", []Artifact{{URL: "https://u:p@h/t", SHA256: any256}}, "!headers file"},
		{"a relative file", []Artifact{{URL: "file://etc/t", SHA256: any256}}, "!file:///PATH"},
		{"no name", []Artifact{{URL: "https://h/", SHA256: any256}}, "!set path"},
		{"a folder for a file", []Artifact{{URL: "https://h/t", Path: "bin/", SHA256: any256}}, "!set path"},
		{"out by path", []Artifact{{URL: "https://h/t", Path: "a/../../t", SHA256: any256}}, "!leads out"},
		{"absolute path", []Artifact{{URL: "https://h/t", Path: "/bin/t", SHA256: any256}}, "!leads out"},
		{"an unknown format", []Artifact{{URL: "https://h/t", Format: "rar", SHA256: any256}}, "!is not known"},
		{"strip of a file", []Artifact{{URL: "https://h/t", Strip: 1, SHA256: any256}}, "!nothing to strip"},
		{"strip below zero", []Artifact{{URL: "https://h/t.tar", Strip: -1, SHA256: any256}}, "!nothing to strip"},
		{"setuid", []Artifact{{URL: "https://h/t", Mode: 0o4755, SHA256: any256}}, "!permission bits"},
		{"one name twice", []Artifact{{URL: "https://h/t", SHA256: any256}, {URL: "https://g/t.gz", SHA256: any256}}, "!claim the name"},
		{"an unknown key", []Artifact{{URL: "https://h/t", Signature: &Signature{Key: "x"}}}, "!there are: shop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			items, err := plan(c.a, Platform{OS: "linux", Arch: "arm64"}, keys)
			if word, bad := strings.CutPrefix(c.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), word) || IsPermanent(err) == (c.name == "an unknown key") {
					t.Errorf("error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			it := items[0]
			if got := strings.Join([]string{it.sources[0], it.layout.Path, string(it.layout.Format), string(rune('0' + it.layout.Strip))}, " "); got != c.want {
				t.Errorf("is %q, want %q", got, c.want)
			}
		})
	}
}

func TestSignatureURLs(t *testing.T) {
	items, err := plan([]Artifact{{URL: "https://h/t?v=1", Mirrors: []string{"https://g/u"}, Signature: &Signature{Key: "shop"}}},
		Platform{"linux", "arm64"}, map[string]verify.Key{"shop": {}})
	if err != nil || strings.Join(items[0].signatures, " ") != "https://h/t.sig?v=1 https://g/u.sig" {
		t.Errorf("%v, %v", items, err)
	}
}

// TestEntryDigest: the same content at the same place is one entry, and nothing
// else is.
func TestEntryDigest(t *testing.T) {
	base := Artifact{URL: "https://h/t.tar.gz", SHA256: map[string]string{"*": strings.Repeat("a1", 32)}}
	of := func(change func(a *Artifact)) string {
		a := base
		change(&a)
		items, err := plan([]Artifact{a}, Platform{"linux", "arm64"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, ok := wantedDigest(items)
		if !ok {
			t.Fatal("not known beforehand")
		}
		return d
	}
	same := of(func(*Artifact) {})
	for name, change := range map[string]func(a *Artifact){
		"url":     func(a *Artifact) { a.URL = "https://g/u.tgz" },
		"mirrors": func(a *Artifact) { a.Mirrors = []string{"https://g/u"} },
		"headers": func(a *Artifact) { a.HeadersFile = "x" },
	} {
		if of(change) != same {
			t.Errorf("another %s is another entry", name)
		}
	}
	for name, change := range map[string]func(a *Artifact){
		"content": func(a *Artifact) { a.SHA256 = map[string]string{"*": strings.Repeat("a2", 32)} },
		"path":    func(a *Artifact) { a.Path = "p" },
		"mode":    func(a *Artifact) { a.Mode = 0o755 },
		"strip":   func(a *Artifact) { a.Strip = 1 },
		"format":  func(a *Artifact) { a.Format = "raw"; a.Path = "t" },
	} {
		if of(change) == same {
			t.Errorf("another %s is the same entry", name)
		}
	}
}
