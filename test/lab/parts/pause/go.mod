module github.com/nodeagent/nodeagent/test/lab/parts/pause

go 1.26.0
