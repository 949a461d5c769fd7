// Package v1alpha1 holds nodeagent's API types: Restart, Binary and
// BinaryInstance, which live in the API server, and Config, which is a file; a
// Binary may be a file too. The CustomResourceDefinitions in
// manifests/base/crds and the deepcopy functions are generated from them by
// `make generate`.
//
// +kubebuilder:object:generate=true
// +groupName=nodeagent.dev
package v1alpha1
