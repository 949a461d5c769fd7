// Nothing of it is built: tests apply its CustomResourceDefinitions.
module github.com/nodeagent/nodeagent/test/lab/parts/argo-rollouts

go 1.26.0

require github.com/argoproj/argo-rollouts v1.10.1
