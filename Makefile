# Gantry: 'make help' lists the targets.
GO      ?= go
PREFIX  ?= /usr/local
BIN     := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X github.com/gantryd/gantry/internal/version.Commit=$(VERSION)
# gRPC's tracing pages would link html/template, and with it every exported method
# of every package: 4 MB of gantryd. test/rig builds with the same tags.
TAGS    := grpcnotrace
export CGO_ENABLED := 0
# git refuses to answer root about a clone that is another user's.
export GOFLAGS += -buildvcs=false

.PHONY: help build demo test test-vm test-vm-arm64 torture torture-steps conformance deps lint bench install uninstall generate

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/
	$(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...
	@# The linker writes by mmap, page by page; a copy lies in large folios, and starts with fewer faults.
	@cd $(BIN) && for p in gantry gantryd gantry-runtime containerd-shim-gantry-v2; do cp $$p $$p.copy && mv $$p.copy $$p || exit 1; done

demo: build ## run a container from a built-in image on a private daemon, show its journey
	@$(GO) run ./test/demo -bin $(BIN)

test: deps build ## install what the tests need and run them all
	$(GO) test -p 1 -timeout 30m ./...

test-vm: deps build ## the tests that want cgroup v2 and another kernel, in a virtual machine (part of make test)
	$(GO) test -count 1 -v -timeout 30m ./test/vm

test-vm-arm64: deps build ## the runtime's tests and the whole chain on an emulated arm64 (some minutes, no part of make test)
	$(GO) test -count 1 -v -timeout 40m -run Arm64 ./test/vm -args -arm64

SECONDS ?= 60
torture: deps build ## kill gantryd and shims at random while clients work, for SECONDS (60), and prove that nothing is lost
	$(GO) test -count 1 -v -timeout 0 -run AnyKill ./test/torture -args -seed 0 -seconds $(SECONDS)

torture-steps: deps build ## kill gantryd, and shims, at every step of every operation (an hour); OPERATION=start for some
	$(GO) test -count 1 -v -timeout 0 -run AnyStep ./test/torture -args -limit 0 -points 0 -operation '$(OPERATION)'

conformance: deps build ## run the suites of other projects against ours, and against theirs as a control
	$(GO) test -p 1 -count 1 -v -timeout 2h ./test/conformance/... -args -all

deps: ## install the Debian packages that the tests and the bench need
	@.ci/deps

lint: ## go vet, staticcheck, gofumpt
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	$(GO) tool staticcheck ./...
	@out=$$($(GO) tool gofumpt -l .); if [ -n "$$out" ]; then echo "gofumpt would change:"; echo "$$out"; exit 1; fi

bench: deps build ## measure against docker, containerd, podman, runc and crun; writes docs/benchmarks.md
	$(GO) test -run "^$$" -bench . -benchtime 1x -timeout 80m ./test/bench -args -report $(CURDIR)/docs/benchmarks.md

generate: ## regenerate the tables that are made from sources
	$(GO) generate ./...

install: build ## install the programs, the systemd unit and shell completions under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/systemd/system \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d \
		$(DESTDIR)$(PREFIX)/share/doc/gantry
	install -m 0755 $(BIN)/gantry $(BIN)/gantryd $(BIN)/gantry-runtime $(BIN)/containerd-shim-gantry-v2 $(DESTDIR)$(PREFIX)/bin/
	install -m 0644 README.md $(DESTDIR)$(PREFIX)/share/doc/gantry/
	sed 's,@PREFIX@,$(PREFIX),' init/gantryd.service > $(DESTDIR)/etc/systemd/system/gantryd.service
	$(BIN)/gantry completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gantry
	$(BIN)/gantry completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gantry
	$(BIN)/gantry completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gantry.fish

uninstall: ## remove what install put in place
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,gantry gantryd gantry-runtime containerd-shim-gantry-v2) \
		$(DESTDIR)/etc/systemd/system/gantryd.service $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gantry \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gantry $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gantry.fish \
		$(DESTDIR)$(PREFIX)/share/doc/gantry/README.md
