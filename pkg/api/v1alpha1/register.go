package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all of nodeagent's types.
const GroupName = "nodeagent.dev"

// GroupVersion is the group and version of the types in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
}

// AddToScheme makes the types that live in the API server known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &Restart{}, &RestartList{}, &Binary{}, &BinaryList{}, &BinaryInstance{}, &BinaryInstanceList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
