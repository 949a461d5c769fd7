// Package verify decides whether an artifact is the one that somebody signed,
// by a key that the node's owner configured: minisign's, or a plain public key
// as cosign's sign-blob --key uses it. It sees digests and a signature, never
// the artifact, and asks no server.
package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jedisct1/go-minisign"
)

// Suffix ends the name of every file that is read as a key.
const Suffix = ".pub"

// Key is a public key with the name that specs know it by.
type Key struct {
	Name string
	// Print tells this key from another of the same name.
	Print    string
	minisign *minisign.PublicKey
	public   crypto.PublicKey
}

// ReadKeys reads all keys of a folder: NAME.pub is the key NAME. A folder that
// is not there holds none.
func ReadKeys(dir string) (map[string]Key, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	if err != nil {
		return nil, fmt.Errorf("cannot read keys in %s: %w", dir, err)
	}
	keys := make(map[string]Key, len(paths))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read key: %w", err)
		}
		k, err := ParseKey(strings.TrimSuffix(filepath.Base(path), Suffix), b)
		if err != nil {
			return nil, fmt.Errorf("cannot read key %s: %w", path, err)
		}
		keys[k.Name] = k
	}
	return keys, nil
}

// ParseKey reads a public key: minisign's two lines, or PEM.
func ParseKey(name string, b []byte) (Key, error) {
	print := sha256.Sum256(b)
	k := Key{Name: name, Print: hex.EncodeToString(print[:])}
	block, _ := pem.Decode(b)
	if block == nil {
		key, err := minisign.DecodePublicKey(strings.TrimRight(string(b), "\r\n "))
		if err != nil {
			return Key{}, errors.New("neither a minisign public key (two lines) nor a public key in PEM")
		}
		k.minisign = &key
		return k, nil
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("no public key in its PEM: %w", err)
	}
	switch public.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		k.public = public
		return k, nil
	default: // Ed25519 signs the whole message, which is not kept
		return Key{}, fmt.Errorf("a key of the kind %T; ECDSA, RSA or minisign is needed", public)
	}
}

// Minisign reports whether signatures of this key are over BLAKE2b, not
// SHA-256.
func (k Key) Minisign() bool { return k.minisign != nil }

// SignatureSuffix is what a signature's name ends with when nothing else is
// said.
func (k Key) SignatureSuffix() string {
	if k.Minisign() {
		return ".minisig"
	}
	return ".sig"
}
