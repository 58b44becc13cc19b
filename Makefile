# Martlet: every target installs what it needs (Debian packages; Swift must be there) and does nothing twice.
SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
export SWIFT ?= swift
# Package traits: TRAITS=Libvirt has the driver for libvirt (docs/libvirt.md).
export TRAITS ?=
TRAIT_OPTION := $(if $(TRAITS),--traits $(TRAITS))
RELEASE := .build/release
AGENT := guest-agent/.build/release/martlet-agent
BENCH_GUEST := guest-agent/.build/release/martlet-bench-guest
# Directories too: their time changes when a file in them goes.
SOURCES := Package.swift $(wildcard Package.resolved) $(shell find Sources)
AGENT_SOURCES := $(SOURCES) $(shell find guest-agent -name '.build*' -prune -o -print)
# What is written by hand.
FORMATTED := find Package.swift Sources Tests guest-agent -name '.build*' -prune -o -name '*.swift' \
	! -name '*.pb.swift' ! -name '*.ttrpc.swift' -print0

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-matrix fuzz unit build agent guest guest-stock guest-faulty guest-bench install deb image fmt lint protos protos-check pictures setup setup-test lab clean

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
		scripts/swift-build.sh --static-swift-stdlib $(TRAIT_OPTION) --product $$product || exit 1; done
	@touch $@

agent: setup $(AGENT)

$(AGENT): $(AGENT_SOURCES)
	@echo "== building the guest agent (static)"
	@touch guest-agent/Package.swift  # else SwiftPM does not see new files of the modules that both packages have
	@scripts/swift-build.sh --package-path guest-agent -Xswiftc -static-executable -Xlinker -s
	@touch $@

guest: agent ## build the guest: kernel and initramfs (KERNEL=stock: the distribution's kernel)
	@AGENT=$(AGENT) scripts/guest.sh

guest-stock: agent
	@AGENT=$(AGENT) KERNEL=stock scripts/guest.sh

guest-bench: setup $(BENCH_GUEST) ## build the guest that martlet bench measures in
	@AGENT=$(BENCH_GUEST) GUEST=bench scripts/guest.sh

$(BENCH_GUEST): $(AGENT_SOURCES)
	@echo "== building the guest of martlet bench (static)"
	@scripts/swift-build.sh --package-path guest-agent -Xswiftc -static-executable -Xlinker -s --product martlet-bench-guest
	@touch $@

# For the tests: the own guest with an agent that crashes and hangs on request.
guest-faulty: guest
	@mkdir -p .build/guest/faulty && ln -sfn ../own/vmlinux .build/guest/faulty/vmlinux
	@[[ .build/guest/faulty/initramfs -nt $(AGENT)-faulty ]] || \
		scripts/guest-initramfs.sh .build/guest/own $(AGENT)-faulty .build/guest/faulty/initramfs

unit: setup-test
	@$(SWIFT) build $(TRAIT_OPTION) --build-tests
	@scripts/test.sh unit

test: setup-test ## set everything up, build, and run the tests that CI runs
	@scripts/test.sh ci

test-all: setup-test ## the tests of `make test`, the soaks, and a part of each kernel, driver and lab
	@scripts/test.sh all

test-matrix: setup-test ## every test with each kernel, driver and lab; hours
	@scripts/test.sh matrix

fuzz: setup-test ## fuzz what guests and clients reach, TIME seconds each: make fuzz [TIME=60] [ONLY='rings fuse'] (docs/fuzzing.md)
	@TIME=$(or $(TIME),60) scripts/fuzz.sh $(ONLY)

# The command as it was written: make would expand its dollar signs.
lab: export LAB_COMMAND = $(value CMD)
lab: ## run a command where /dev/kvm works, whatever this machine has: make lab [ENGINE=bochs] CMD='…' (docs/lab.md)
	@scripts/lab.sh $(if $(ENGINE),--engine $(ENGINE)) bash -c "$${LAB_COMMAND:?say what to run: make lab CMD=…}"

install: build guest ## install below DESTDIR/PREFIX
	@scripts/install.sh "$(DESTDIR)" "$(PREFIX)"

deb: build guest ## build the Debian packages into .build/deb, and check them with Lintian (docs/install.md)
	@scripts/deb.sh

image: build guest ## write the image that puts Martlet on Kubernetes nodes (IMAGE=NAME; docs/kubernetes.md)
	@scripts/node-image.sh $(IMAGE)

fmt: ## format the sources
	@$(FORMATTED) | xargs -0 $(SWIFT) format --in-place --parallel

lint: ## check the format of the sources
	@$(FORMATTED) | xargs -0 $(SWIFT) format lint --strict --parallel

protos: ## generate the RPC code anew
	@scripts/protos.sh

protos-check:
	@scripts/protos.sh --check

pictures: ## draw the pictures of docs/ anew (needs graphviz)
	@. scripts/need.sh && need graphviz
	@for picture in docs/pictures/*.dot; do dot -Tsvg "$$picture" -o "$${picture%.dot}.svg" || exit 1; done

clean: ## remove what was built here (the cache in ~/.cache/martlet stays)
	@rm -rf .build guest-agent/.build
