package reload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// memory is what workloads were last started with. It stands in sixteen Secrets
// of the agent's namespace, so that many workloads fit and few bytes are
// written for one of them. Secrets and no ConfigMaps: from a fingerprint a weak
// password could be guessed.
type memory struct {
	client    client.Client
	namespace string
	shards    map[string]*corev1.Secret // by the first digit of the keys in it
	dirty     map[string]bool
}

const memoryName = "nodeagent-reload-"

// recall reads what was remembered.
func recall(ctx context.Context, c client.Client, namespace string) (*memory, error) {
	m := &memory{client: c, namespace: namespace, shards: map[string]*corev1.Secret{}, dirty: map[string]bool{}}
	for digit := range 16 {
		shard := fmt.Sprintf("%x", digit)
		s := &corev1.Secret{}
		err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: memoryName + shard}, s)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read Secret %s/%s%s: %w", namespace, memoryName, shard, err)
		}
		m.shards[shard] = s
	}
	return m, nil
}

// keyOf tells a workload from a later one of the same name: that one's pods are
// started with what there is then.
func keyOf(uid types.UID) string {
	sum := sha256.Sum256([]byte(uid))
	return hex.EncodeToString(sum[:12])
}

// get is nil where nothing is remembered.
func (m *memory) get(uid types.UID) prints {
	key := keyOf(uid)
	s := m.shards[key[:1]]
	if s == nil || s.Data[key] == nil {
		return nil
	}
	p := prints{}
	if json.Unmarshal(s.Data[key], &p) != nil {
		return nil // somebody else wrote into it: as if nothing were known
	}
	return p
}

func (m *memory) set(uid types.UID, p prints) {
	key := keyOf(uid)
	s := m.shards[key[:1]]
	if s == nil {
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: m.namespace, Name: memoryName + key[:1],
			Labels: map[string]string{"app.kubernetes.io/managed-by": "nodeagent"},
		}}
		m.shards[key[:1]] = s
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return // a map of strings: cannot be
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	s.Data[key] = raw
	m.dirty[key[:1]] = true
}

// keep drops what is remembered of workloads that are gone or no longer ask.
func (m *memory) keep(uids map[types.UID]bool) {
	keys := map[string]bool{}
	for uid := range uids {
		keys[keyOf(uid)] = true
	}
	for shard, s := range m.shards {
		before := len(s.Data)
		maps.DeleteFunc(s.Data, func(key string, _ []byte) bool { return !keys[key] })
		if len(s.Data) != before {
			m.dirty[shard] = true
		}
	}
}

// save writes what changed. A conflict means that another agent leads: it is
// returned, and this one begins anew.
func (m *memory) save(ctx context.Context) error {
	for shard := range m.dirty {
		s := m.shards[shard]
		var err error
		if s.ResourceVersion == "" {
			err = m.client.Create(ctx, s)
		} else {
			err = m.client.Update(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("cannot write Secret %s/%s: %w", m.namespace, s.Name, err)
		}
		delete(m.dirty, shard)
	}
	return nil
}
