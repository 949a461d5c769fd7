# make demo: the main job, live, on a real one-node cluster.
# make test: every test there is.
# Both install what they need and say what they are doing.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
IMAGE   ?= nodeagent.dev/nodeagent:dev
# Tools are built once per version and kept outside the clone, beside the lab's parts.
CACHE   ?= $(or $(NODEAGENT_LAB_CACHE),$(HOME)/.cache/nodeagent-lab)
LAB     := bin/lab
say      = @printf '\n\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help
help: ## tell what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

## ---- building

.PHONY: build
build: bin/nodeagent ## the agent, static, into bin/

.PHONY: bin/nodeagent bin/keeper bin/webapp bin/image bin/lab
bin/nodeagent: bin/keeper
	$(call say,build the agent (first time about 5 minutes))
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/nodeagent

# What stays with each launched task. The agent carries it (go:embed).
KEEPER := pkg/binlaunch/keeper/binary/built/nodeagent-keeper
bin/keeper:
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o $(KEEPER) ./cmd/nodeagent-keeper

bin/webapp:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $@ ./test/e2e/webapp

bin/image:
	go -C tools build -o ../$@ ./image

bin/lab:
	CGO_ENABLED=0 go -C test/lab build -o ../../$@ .

.PHONY: image
image: bin/nodeagent bin/image ## the agent as an OCI image, into dist/nodeagent.tar
	@mkdir -p dist
	bin/image -binary bin/nodeagent -name $(IMAGE) -out dist/nodeagent.tar

dist/webapp.tar: bin/webapp bin/image
	@mkdir -p dist
	bin/image -binary bin/webapp -name nodeagent.dev/webapp:dev -volume /data -out $@

.PHONY: generate
generate: ## the CRDs and deepcopy functions from the Go types, the docs from the code
	go -C tools build -o ../bin/controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen
	bin/controller-gen object paths=./pkg/api/...
	bin/controller-gen crd paths=./pkg/api/... output:crd:dir=manifests/base/crds
	go run ./build/generate
	go test ./cmd/nodeagent -count=1 -run '^TestCLIReference$$' -update

## ---- the real cluster

.PHONY: parts
parts: bin/lab ## build the parts of the cluster, once per version
	$(LAB) build

.PHONY: up
up: parts image dist/webapp.tar ## a one-node cluster with the agent on it; NODES=2 for two
	$(LAB) up --nodes $(or $(NODES),1)
	$(LAB) load dist/nodeagent.tar
	$(LAB) load dist/webapp.tar

.PHONY: down
down: bin/lab ## end the cluster and leave nothing
	$(LAB) down

.PHONY: demo
demo: ## the main job, live: a disk fills, the workload is restarted, no request fails
	$(call say,1 of 3: build the agent and the cluster's parts (first time about 15 minutes))
	@$(MAKE) --no-print-directory parts image dist/webapp.tar
	$(call say,2 of 3: start the cluster)
	@$(MAKE) --no-print-directory up
	$(call say,3 of 3: the story)
	@go run ./test/demo -lab $(LAB)

## ---- testing

.PHONY: test
test: test-unit test-lab test-beside ## every test, in tiers

# The stories wait for most of their time, the emulated machine computes: its words
# come after theirs, and where both want processors it has a quarter. A session is
# one group to the kernel's scheduler, which nice does not weigh but for its autogroup.
VM_LOG = dist/test-vm.log
WHAT_FAILED = dist/what-failed
BESIDE = setsid sh -c '{ echo 5 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$$@"' beside

.PHONY: test-beside
test-beside: parts image dist/webapp.tar bin/vm bin/keeper bin/parts-program
	$(call say,another kernel begins$(,) beside the stories$(,) into $(VM_LOG))
	@$(BESIDE) $(MAKE) --no-print-directory -o bin/lab -o bin/vm -o bin/keeper -o bin/parts-program test-vm >$(VM_LOG) 2>&1 & vm=$$!; \
	rm -f $(WHAT_FAILED); code=0; \
	WHAT_FAILED=$(WHAT_FAILED) $(MAKE) --no-print-directory test-e2e || code=$$?; \
	wait $$vm || { code=$$?; vm=failed; }; cat $(VM_LOG); \
	[ $$vm != failed ] || printf '\n==== failed: make test-vm, whose words are above\n'; \
	[ ! -s $(WHAT_FAILED) ] || cat $(WHAT_FAILED); exit $$code

# What takes longest begins first: at the end of all it would keep one core busy
# alone for a quarter of an hour. go test tells results in this order.
TEST_FIRST := ./pkg/restart ./cmd/nodeagent ./pkg/disk

.PHONY: test-unit
test-unit: parts bin/keeper ## all packages with the race detector; real containerds and a real API server where the part is the point
	$(call say,unit tests$(,) real containerd 2.x and 1.6$(,) real API server; the longest first$(,) so the first result comes after a quarter of an hour)
	eval "$$($(LAB) test-env)" && .ci/go-test -race -timeout 40m $$({ go list $(TEST_FIRST); go list ./... | grep -vE '/test/(e2e|vm)$$'; } | awk '!seen[$$0]++')
	go -C build/promql test -count=1 ./...

.PHONY: fuzz
fuzz: ## each parser of what others wrote, and the walk, with made-up input; FUZZTIME=10m each
	$(call say,fuzz$(,) $(or $(FUZZTIME),10m) each)
	set -e; grep -rl --include='*_test.go' '^func Fuzz' pkg | sort | while read -r file; do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' "$$file"); do \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(or $(FUZZTIME),10m) "./$${file%/*}"; \
		done; \
	done

.PHONY: test-lab
test-lab: parts ## the cluster itself: up, down, killed half-way
	$(call say,the lab: up$(,) down$(,) killed half-way (ends a lab that runs))
	@$(LAB) down
	go -C test/lab test -count=1 -timeout 20m ./...

.PHONY: bin/vm
bin/vm:
	CGO_ENABLED=0 go build -trimpath -o $@ ./test/vm

VM_PROGRAMS := --program sh --program sleep --program du
VM_CONTAINERS := $(addprefix --program ,bash head dd truncate fallocate mkdir rmdir rm mv ln cp cat chmod chown touch seq gzip mount mkfs.ext4 mkfs.xfs)
VM_PROBES := TestProbes|TestProbeInALargeFolder|TestProbeOfAFullLayer|TestProbeIsNotFooled|TestProbeEvidence
# They ask what the walk takes in descriptors and memory, which is the same on
# any kernel; the second takes four minutes of the three disks' nine under emulation.
VM_SKIP := TestWalkKeepsFewDescriptors|TestWalkHostileTree
VM_CGROUP := TestAGroupFromBirthToRemoval|TestWhatCannotBeEnforcedIsNamed
VM_SANDBOX := TestExitStatusCannotBeForged|TestOutputCannotFillTheDisk|TestTheSandboxIsBounded|TestListeningSocketsArePassed|TestBestEffortStartsAndTells|TestAKilledKeeperTakesItsTaskWithIt|TestAttachLeavesAForeignCgroup|TestHowTasksEnd|TestStop|TestAMemoryBombEndsAsAGroupAndIsTold|TestAForkBombIsBounded|TestATaskCannotGetOut|TestStatsComeFromTheCgroup|TestTheKeeperIsOutsideOfTheTasksCgroup|TestAnOrphanEndsWithItsTask|TestTasksOutliveTheirAgents
VM_SYSTEMD := TestUnderSystemd|TestSystemdTakesWhatHasAUnitsName
VM_PORTS := TestAccepted|TestListeners|TestHoldInAnotherNamespace
VM_PARTS := TestUpdatesThroughAHeldSocket|TestHeldPortBelow1024

# What pkg/binlaunch/parts launches, which its tests cannot build in the machine.
.PHONY: bin/parts-program
bin/parts-program:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $@ ./pkg/binlaunch/parts/testdata/program

.PHONY: test-vm
test-vm: bin/lab bin/vm bin/keeper bin/parts-program ## Debian's 6.1 kernel in a virtual machine: XFS, ext4, tmpfs, cgroup v2 alone, no overlay events; with systemd
	$(call say,another kernel$(,) 1 of 5: the virtual machine itself)
	NODEAGENT_LAB=$(CURDIR)/$(LAB) go test -count=1 -timeout 15m ./test/vm
	$(call say,another kernel$(,) 2 of 5: layers are walked on XFS$(,) ext4 and tmpfs$(,) and below overlays; deleted files that are open)
	bin/vm run --disk xfs:1G --disk ext4:1G --disk tmpfs $(VM_PROGRAMS) ./pkg/disk -- '-test.run=^(TestWalk.*|TestProbeOverlay)$$' '-test.skip=^($(VM_SKIP))$$'
	bin/vm run --disk ext4:2G --module xfs $(VM_PROGRAMS) $(VM_CONTAINERS) ./pkg/disk -- '-test.run=^TestOverlayContract$$/^walk$$|^TestOpenFiles|^($(VM_PROBES))$$'
	$(call say,another kernel$(,) 3 of 5: tasks and their limits under cgroup v2 alone; the agent chooses to walk)
	bin/vm run --disk ext4:1G --module tcp_diag $(VM_PROGRAMS) --program bin/parts-program --env PARTS_PROGRAM=/usr/bin/parts-program \
	  ./pkg/binlaunch/cgroup ./pkg/binlaunch/sandbox ./pkg/binlaunch/ports ./pkg/binlaunch/parts ./cmd/nodeagent -- \
	  -test.short '-test.run=^($(VM_CGROUP)|$(VM_SANDBOX)|$(VM_PORTS)|$(VM_PARTS)|TestChooseMeter)$$'
	$(call say,another kernel$(,) 4 of 5: systemd is process 1: what it does leaves tasks and their limits alone)
	bin/vm run --systemd $(VM_PROGRAMS) --program true ./pkg/binlaunch/cgroup ./pkg/binlaunch/sandbox -- '-test.run=^($(VM_CGROUP)|TestTheKeeperIsOutsideOfTheTasksCgroup|$(VM_SYSTEMD))$$'
	$(call say,another kernel$(,) 5 of 5: many binaries fetched at once)
	bin/vm run --disk ext4:1G --env FETCH_HOST=/proc/self/exe ./pkg/binlaunch/fetch -- '-test.run=^TestManyAtOnce$$'

.PHONY: test-e2e
test-e2e: parts image dist/webapp.tar ## stories on a real two-node cluster
	$(call say,stories on a real two-node cluster)
	@$(LAB) down
	@$(MAKE) --no-print-directory up NODES=2
	code=0; NODEAGENT_LAB=$(CURDIR)/$(LAB) .ci/go-test -timeout 75m -parallel 4 -count=1 -v ./test/e2e || code=$$?; $(LAB) down; exit $$code

## ---- linting

GOLANGCI := $(CACHE)/golangci-lint-$(shell sha256sum tools/golangci-lint/go.sum 2>/dev/null | cut -c1-12)/golangci-lint

$(GOLANGCI):
	$(call say,build golangci-lint (first time about 5 minutes))
	@mkdir -p $(@D)
	go -C tools/golangci-lint build -o $@.partial github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	mv $@.partial $@

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint with the import directions, and that what is generated is up to date
	$(GOLANGCI) run ./...
	# The lab and the image builder are run by developers with their own rights.
	cd build/promql && $(GOLANGCI) run --config ../../.golangci.yml ./...
	cd test/lab && $(GOLANGCI) run --config ../../.golangci.yml --disable gosec,noctx ./...
	cd tools && $(GOLANGCI) run --config ../.golangci.yml --disable gosec,noctx ./image/...

.PHONY: check-generated
check-generated: generate ## fails when a generated file was not generated again
	@git diff --exit-code -- pkg/api manifests docs || { echo "run make generate and commit what it changed"; exit 1; }

.PHONY: bench-idle
bench-idle: up ## what the agent costs on a node with 20 idle pods
	go run ./bench/idle -lab $(LAB)

.PHONY: bench-launch
bench-launch: parts bin/keeper ## launches side by side with runc, crun, podman, ctr and a bare fork and exec
	CGO_ENABLED=0 go build -o bin/bench-launch ./bench/launch
	eval "$$($(LAB) test-env)" && BENCH_PEERS="$$($(LAB) fetch launch-peers)" bin/bench-launch -results bench/results/launch.json -readme bench/README.md

.PHONY: bench-forecast
bench-forecast: ## how right and how early the verdicts are, over the recorded series
	go run ./bench/forecast

.PHONY: bench-restart
bench-restart: parts ## 10, 100 and 1,000 agents against a real API server, 100 offending workloads at once
	@mkdir -p bench/results
	eval "$$($(LAB) test-env)" && NODEAGENT_BENCH_OUT=$(CURDIR)/bench/results/restart.json NODEAGENT_BENCH_README=$(CURDIR)/bench/README.md go test -tags bench -count=1 -timeout 60m -v -run '^TestScale$$' ./pkg/restart

.PHONY: bin/bench-disk
bin/bench-disk:
	CGO_ENABLED=0 go build -trimpath -o $@ ./bench/disk

.PHONY: bench-disk
bench-disk: parts bin/nodeagent bin/bench-disk ## what watching costs, beside containerd, du and gdu (31 minutes); LOADS=walk,idle for some
	gdu=$$($(LAB) fetch gdu)/usr/bin/gdu && eval "$$($(LAB) test-env)" && \
	  bin/bench-disk -agent bin/nodeagent -gdu "$$gdu" $(if $(LOADS),-loads $(LOADS),-results bench/results/disk.json -readme bench/README.md)

.PHONY: vuln
vuln: ## known vulnerabilities in what is called
	go -C tools build -o ../bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	bin/govulncheck ./...

, := ,
