package verify

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manualKey is a public key as minisign writes it.
const manualKey = "untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n"

func TestParseKey(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, word string }{
		"minisign":        {manualKey, ""},
		"with CRLF":       {strings.ReplaceAll(manualKey, "\n", "\r\n"), ""},
		"without its end": {strings.TrimSpace(manualKey), ""},
		"empty":           {"", "neither"},
		"one line":        {"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", "neither"},
		"Ed25519":         {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "ECDSA, RSA or minisign"},
		"no key in PEM":   {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})), "no public key"},
	} {
		k, err := ParseKey("k", []byte(c.text))
		if c.word == "" && (err != nil || !k.Minisign()) || c.word != "" && (err == nil || !strings.Contains(err.Error(), c.word)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadKeys(t *testing.T) {
	dir := t.TempDir()
	if keys, err := ReadKeys(filepath.Join(dir, "none")); err != nil || len(keys) != 0 {
		t.Errorf("no folder: %v, %v", keys, err)
	}
	for name, text := range map[string]string{"shop.pub": manualKey, "README": "no key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := ReadKeys(dir)
	if err != nil || len(keys) != 1 || keys["shop"].Name != "shop" {
		t.Errorf("%v, %v", keys, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.pub"), []byte("bad"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(dir); err == nil || !strings.Contains(err.Error(), "bad.pub") {
		t.Errorf("error is %v", err)
	}
}
