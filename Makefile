# Martlet: every target installs what it needs (Debian packages; Swift must be there) and does nothing twice.
SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
SWIFT ?= swift
RELEASE := .build/release
AGENT := guest-agent/.build/release/martlet-agent
BENCH_GUEST := guest-agent/.build/release/martlet-bench-guest
SOURCES := $(shell git ls-files Sources Package.swift 2>/dev/null)
AGENT_SOURCES := $(SOURCES) $(shell git ls-files guest-agent 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test test-all unit build agent guest guest-stock guest-faulty guest-bench install fmt lint protos protos-check pictures setup setup-test lab clean

help: ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

run: setup build ## set everything up and run the demo container in a VM
	@scripts/demo.sh

build: setup $(RELEASE)/martlet ## build the executables into .build/release

$(RELEASE)/martlet: $(SOURCES)
	@echo "== building martlet (release)"
	@for product in martlet martlet-device martlet-vmm containerd-shim-martlet-v2; do \
		$(SWIFT) build -c release --static-swift-stdlib --product $$product || exit 1; done
	@touch $@

agent: setup $(AGENT)

$(AGENT): $(AGENT_SOURCES)
	@echo "== building the guest agent (static)"
	@cd guest-agent && $(SWIFT) build -c release -Xswiftc -static-executable -Xlinker -s
	@touch $@

guest: agent ## build the guest: kernel and initramfs (KERNEL=stock: the distribution's kernel)
	@AGENT=$(AGENT) scripts/guest.sh

guest-stock: agent
	@AGENT=$(AGENT) KERNEL=stock scripts/guest.sh

guest-bench: setup $(BENCH_GUEST) ## build the guest that martlet bench measures in
	@AGENT=$(BENCH_GUEST) GUEST=bench scripts/guest.sh

$(BENCH_GUEST): $(AGENT_SOURCES)
	@echo "== building the guest of martlet bench (static)"
	@cd guest-agent && $(SWIFT) build -c release -Xswiftc -static-executable -Xlinker -s --product martlet-bench-guest
	@touch $@

# For the tests: the own guest with an agent that crashes and hangs on request.
guest-faulty: guest
	@mkdir -p .build/guest/faulty && ln -sfn ../own/vmlinux .build/guest/faulty/vmlinux
	@[[ .build/guest/faulty/initramfs -nt $(AGENT)-faulty ]] || \
		scripts/guest-initramfs.sh .build/guest/own $(AGENT)-faulty .build/guest/faulty/initramfs

unit: setup-test
	@$(SWIFT) build --build-tests
	@scripts/test.sh unit

test: setup-test ## set everything up, build, and run the tests that CI runs
	@scripts/test.sh ci

test-all: setup-test ## the tests of `make test`, and the soaks and full matrices too
	@scripts/test.sh all

# The command as it was written: make would expand its dollar signs.
lab: export LAB_COMMAND = $(value CMD)
lab: ## run a command where /dev/kvm works, whatever this machine has: make lab CMD='…' (docs/lab.md)
	@scripts/lab.sh bash -c "$${LAB_COMMAND:?say what to run: make lab CMD=…}"

install: build guest ## install below DESTDIR/PREFIX
	@scripts/install.sh "$(DESTDIR)" "$(PREFIX)"

fmt: ## format the sources
	@$(SWIFT) format --in-place --parallel $$(git ls-files '*.swift' | grep -v -e '\.pb\.swift$$' -e '\.ttrpc\.swift$$')

lint: ## check the format of the sources
	@$(SWIFT) format lint --strict --parallel $$(git ls-files '*.swift' | grep -v -e '\.pb\.swift$$' -e '\.ttrpc\.swift$$')

protos: ## generate the RPC code anew
	@scripts/protos.sh

protos-check:
	@scripts/protos.sh --check

pictures: ## draw the pictures of docs/ anew (needs graphviz)
	@. scripts/need.sh && need graphviz
	@for picture in docs/pictures/*.dot; do dot -Tsvg "$$picture" -o "$${picture%.dot}.svg" || exit 1; done

clean: ## remove what was built here (the cache in ~/.cache/martlet stays)
	@rm -rf .build guest-agent/.build
