package fetch

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
)

// TestMinisign: aead.dev/minisign signs, an implementation other than the one
// that verifies.
func TestMinisign(t *testing.T) {
	b := newBench(t)
	b.Fetcher.opts.KeysDir = b.dir
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.dir, "shop.pub"), text)
	content := []byte("signed content")
	b.serve("/x", content)
	signed := func(k minisign.PrivateKey, content []byte) []byte {
		r := minisign.NewReader(strings.NewReader(string(content))) // prehashed, as minisign has it today
		if _, err := r.Read(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		return r.SignWithComments(k, "release 1", "")
	}
	a := Artifact{URL: b.server.URL + "/x", Signature: &Signature{Key: "shop"}}
	b.refused("404", a)
	for path, c := range map[string]struct {
		sig  []byte
		word string
	}{
		"/other":   {signed(other, content), "key"},
		"/content": {signed(private, []byte("else")), "not one of this artifact"},
		"/legacy":  {minisign.Sign(private, content), "not over a hash"},
		"/none":    {[]byte("no signature"), "cannot read the minisign signature"},
		"/comment": {[]byte(strings.Replace(string(signed(private, content)), "release 1", "release 9", 1)), "not one of this artifact"},
	} {
		a.Signature.URL = b.serve(path, c.sig)
		if err := b.refused(c.word, a); IsPermanent(err) || !IsWrong(err) {
			t.Errorf("%s: permanent %v, wrong %v", path, IsPermanent(err), IsWrong(err))
		}
	}
	a.Signature.URL = ""
	b.serve("/x.minisig", signed(private, content))
	e, r := b.get(a)
	if r.Artifacts[0].Signer != "shop (release 1)" || read(t, e.Path, "x") != string(content) {
		t.Errorf("%+v", r)
	}
	if _, r := b.get(a); r.Artifacts[0].Signer != "shop (release 1)" {
		t.Errorf("from the store: %+v", r)
	}
	a.Signature.Key = "none"
	if err := b.fails(a); !strings.Contains(err, `"none"`) || !strings.Contains(err, "there are: shop") {
		t.Error(err)
	}
}

// TestSigstoreKey: openssl signs as cosign sign-blob --key does.
func TestSigstoreKey(t *testing.T) {
	for kind, genkey := range map[string]string{
		"ecdsa": "openssl ecparam -genkey -name prime256v1 -noout -out key && openssl ec -in key -pubout -out cosign.pub",
		"rsa":   "openssl genrsa -out key 2048 && openssl rsa -in key -pubout -out cosign.pub",
	} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t)
			b.Fetcher.opts.KeysDir = b.dir
			content := []byte("signed content")
			write(t, filepath.Join(b.dir, "x"), content)
			cmd := exec.Command("bash", "-ec", genkey+" && openssl dgst -sha256 -sign key x > raw")
			cmd.Dir = b.dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			raw := []byte(read(t, b.dir, "raw"))
			b64 := base64.StdEncoding.EncodeToString(raw)
			b.serve("/x", content)
			b.serve("/y", []byte("other content"))
			b.serve("/x.sig", []byte(b64+"\n"))
			b.serve("/y.sig", []byte(b64+"\n"))
			bundle, err := json.Marshal(map[string]any{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
				"messageSignature": map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256"}, "signature": raw}})
			if err != nil {
				t.Fatal(err)
			}
			b.refused("not one of this artifact", Artifact{URL: b.server.URL + "/y", Signature: &Signature{Key: "cosign"}})
			if _, r := b.get(Artifact{URL: b.server.URL + "/x", Signature: &Signature{Key: "cosign"}}); r.Artifacts[0].Signer != "cosign" {
				t.Errorf("%+v", r)
			}
			b.get(Artifact{URL: b.server.URL + "/x", Signature: &Signature{Key: "cosign", URL: b.serve("/bundle", bundle)}})
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
