package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jedisct1/go-minisign"
)

// Digests of an artifact that a signature may be over.
type Digests struct {
	SHA256 []byte
	Blake2 []byte // BLAKE2b-512
}

// Check tells who signed: the key's name, with minisign's trusted comment. Any
// error means that nobody did who counts.
func (k Key) Check(signature []byte, d Digests) (string, error) {
	if k.minisign != nil {
		return k.checkMinisign(string(signature), d.Blake2)
	}
	raw, err := rawSignature(signature)
	if err != nil {
		return "", fmt.Errorf("cannot read the signature: %w", err)
	}
	valid := false
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(public, d.SHA256, raw)
	case *rsa.PublicKey:
		valid = rsa.VerifyPKCS1v15(public, crypto.SHA256, d.SHA256, raw) == nil
	}
	if !valid {
		return "", fmt.Errorf("the signature is not one of this artifact by the key %s", k.Name)
	}
	return k.Name, nil
}

func (k Key) checkMinisign(signature string, blake2 []byte) (string, error) {
	s, err := minisign.DecodeSignature(strings.TrimRight(signature, "\r\n "))
	if err != nil {
		return "", fmt.Errorf("cannot read the minisign signature: %w", err)
	}
	if s.SignatureAlgorithm != [2]byte{'E', 'D'} {
		return "", errors.New("the minisign signature is not over a hash, as old versions and -l make it; sign anew with minisign 0.10 or later")
	}
	// The library hashes what it is given unless the signature is over the
	// message itself: to it the hash is the message.
	s.SignatureAlgorithm = [2]byte{'E', 'd'}
	if ok, err := k.minisign.Verify(blake2, s); err != nil || !ok {
		return "", fmt.Errorf("the signature is not one of this artifact by the key %s: %w", k.Name, err)
	}
	return fmt.Sprintf("%s (%s)", k.Name, strings.TrimPrefix(s.TrustedComment, "trusted comment: ")), nil
}

// bundle is what counts here of a sigstore bundle, as cosign 3 writes it. Its
// transparency log is not asked: the key is what is trusted.
type bundle struct {
	MessageSignature *struct {
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
	// Base64Signature is the field's name in cosign 2.
	Base64Signature []byte `json:"base64Signature"`
}

// rawSignature takes the signature out of a sigstore bundle, or of the base64
// that cosign sign-blob prints.
func rawSignature(b []byte) ([]byte, error) {
	b = bytes.TrimSpace(b)
	if !bytes.HasPrefix(b, []byte("{")) {
		return base64.StdEncoding.DecodeString(string(b))
	}
	var bun bundle
	if err := json.Unmarshal(b, &bun); err != nil {
		return nil, err
	}
	switch {
	case bun.MessageSignature != nil:
		return bun.MessageSignature.Signature, nil
	case len(bun.Base64Signature) > 0:
		return bun.Base64Signature, nil
	}
	return nil, errors.New("a bundle without a signature over the artifact itself")
}
