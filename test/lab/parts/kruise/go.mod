// Nothing of it is built: tests apply its CustomResourceDefinitions.
module github.com/nodeagent/nodeagent/test/lab/parts/kruise

go 1.26.0

require github.com/openkruise/kruise v1.9.1
