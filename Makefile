# SPDX-License-Identifier: GPL-2.0
#
# make help says what there is.  The build of the module itself is in Kbuild.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

B := build
MODULE := $(B)/erofs_shared.ko
JOBS ?= $(shell nproc)

# The pinned kernel has its tree and its compilers under build/ (scripts/setup), the other kernels of scripts/kernels.lock
# under build/kernels/.  Another tree is built with the compilers of this system.
KERNEL ?= amd64
ifneq ($(KDIR),)
  tree := $(abspath $(KDIR))
  objects := $(CURDIR)/$(B)/module-kdir
  in :=
  cc :=
  need := check-kdir
else ifneq ($(KERNEL),amd64)
  get = $(shell scripts/kernels --get $(KERNEL) $(1))
  ifeq ($(call get,tree),)
    $(error KERNEL=$(KERNEL) is not one of scripts/kernels)
  endif
  tree := $(CURDIR)/$(call get,tree)
  objects := $(CURDIR)/$(B)/kernels/$(KERNEL)/module
  MODULE := $(B)/kernels/$(KERNEL)/erofs_shared.ko
  in := scripts/in-debian --tree $(call get,debian)
  cc := $(call get,options)
  need := setup-kernel
  export VM_KERNEL := $(KERNEL)
else
  tree := $(CURDIR)/$(B)/linux
  objects := $(CURDIR)/$(B)/module
  in := scripts/in-debian
  cc := CC=gcc-$(shell . scripts/versions; echo $$GCC_VERSION)
  need := setup-build
endif

kbuild = $(in) $(MAKE) -C $(tree) M=$(CURDIR) $(cc) -j$(JOBS)

.PHONY: all module
all: module

##@ Build
##  make                    build/erofs_shared.ko for the pinned Debian kernel; makes what it needs first
##  make KERNEL=NAME ...    the same, and make vm, vm-run, test, for one of the kernels that scripts/kernels lists
##  make KDIR=TREE          the same for any configured kernel tree with Rust metadata, with this system's compilers
module: $(need)
	@mkdir -p $(objects)
	$(kbuild) MO=$(objects) modules
	cmp -s $(objects)/erofs_shared.ko $(MODULE) || cp $(objects)/erofs_shared.ko $(MODULE)
	echo "$(MODULE) is ready for $$(cat $(tree)/include/config/kernel.release)"

##  make install            the module into /lib/modules of the kernel it is for (or below DESTDIR=), so that mount finds it
.PHONY: install
install: module
	@release=$$(cat $(tree)/include/config/kernel.release)
	modules=$(DESTDIR)/lib/modules/$$release
	if [ ! -d "$$modules/kernel" ]; then
		echo "make install: $$modules has no kernel; this module is for Linux $$release" >&2
		exit 1
	fi
	install -D -m 644 $(MODULE) "$$modules/updates/erofs_shared.ko"
	depmod $(if $(DESTDIR),-b $(DESTDIR)) "$$release"
	echo "installed $$modules/updates/erofs_shared.ko; mount -t erofs-shared loads it"

##  make deb                Debian packages of the module, of DKMS and of the tool, in build/deb (SIGN_KEY=PEM SIGN_CERT=PEM to sign)
.PHONY: deb
deb: module
	@[ $(KERNEL) = amd64 ] || { echo "make deb: the package is that of the pinned kernel; for others there is DKMS" >&2; exit 2; }
	scripts/setup packaging
	scripts/deb

##  make debug-kernel       build/linux-debug: a kernel with KASAN, lockdep, kmemleak… (10 minutes, once)
##  make debug-module       build/debug/erofs_shared.ko for it
.PHONY: debug-kernel debug-module
debug-kernel: setup-build
	@scripts/debug-kernel
debug-module: module setup-vm
	@scripts/debug-kernel module

.PHONY: check-kdir
check-kdir:
	@if [ ! -e $(tree)/include/config/kernel.release ]; then
		echo "KDIR=$(KDIR): not a configured kernel tree (no include/config/kernel.release)." >&2
		echo "Run in it: make olddefconfig prepare modules_prepare" >&2
		exit 1
	fi
	if [ ! -e $(tree)/rust/libkernel.rmeta ]; then
		echo "KDIR=$(KDIR): no Rust metadata here (rust/libkernel.rmeta). Debian's header packages do not ship it." >&2
		echo "Plain 'make' regenerates it for $$(. scripts/versions; echo $$KERNEL_RELEASE)." >&2
		echo "For another kernel see Documentation/building.md." >&2
		exit 1
	fi
	# What was built against another tree must not be mixed in.
	if [ "$$(cat $(objects)/.kdir 2>/dev/null)" != "$(tree)" ]; then
		rm -rf $(objects)
		mkdir -p $(objects)
		echo "$(tree)" > $(objects)/.kdir
	fi

##  make setup              everything under build/ that building and testing need (scripts/setup)
##  scripts/kernels         which other kernels KERNEL= takes; fetches one (NAME…), or newer versions (--update; Documentation/kernels.md)
.PHONY: setup setup-build setup-vm setup-lint setup-kernel
setup:
	@scripts/setup
setup-build:
	@scripts/setup linux
setup-vm: setup-build
	@scripts/setup guest
setup-lint:
	@scripts/setup lint
# Guests know one place of the module, so that of the pinned kernel is made, too.
setup-kernel:
	@scripts/setup linux
	scripts/kernels $(KERNEL)
	[ -e $(B)/erofs_shared.ko ] || make KERNEL=amd64 module

##@ Try
##  make demo               mount two real Debian systems in the stock kernel, compare every file, tell what happened
##  make vm                 a shell in a guest with the module loaded (VM='--mem 4G …' for options of scripts/vm)
##  make vm-run CMD='…'     run a command there; its output and its exit status
.PHONY: demo vm vm-run
demo: module
	@scripts/demo $(DEMO)
vm: module setup-vm
	@scripts/vm $(VM)
vm-run: module setup-vm
	@[ -n "$$VM_COMMAND" ] || { echo "make vm-run CMD='command for the guest'" >&2; exit 2; }
	scripts/vm $(VM) -- "$$VM_COMMAND"
# Through the environment, so that make and the shell leave its dollars and quotes alone.
vm-run: export VM_COMMAND := $(value CMD)

##@ Test
##  make test               tests on the host, then the kselftests in the guest, then a short benchmark
##  tests/run.sh NAME…      some of the tests in the guest (GUESTS=1, FSTYPE=erofs, VM_KERNEL=debug; Documentation/testing.md)
##  make test-debug         the kselftests and stress tests in the debug kernel (TEST_DEBUG=--bounded, --quick or --least: a short round)
##  make test-kernels       some of the tests in the guest, in each of the other kernels (NAMES='rt-amd64 …', TESTS=all or names)
##  tests/kselftest.sh      the tests as the kernel's selftests, in a guest (names, or all)
##  make test-packages      the Debian packages: contents and schemas, DKMS in a Debian tree, three boots of a system with them
##  make test-sanitize      the tests of the format core with the address sanitizer, and 2 minutes of fuzzing
##  make coverage           which of its lines the tests on the host run
##  scripts/fuzz.sh         fuzz the format core (a target and seconds)
##  .ci/run                 all that every change must pass, from a clean clone

##@ Check
##  make check              formatting, lints, documents, spelling, licences, commit subjects, style counts (CONTRIBUTING.md)
##  make fmt                format the Rust sources, write Documentation/files.md
##  make doc                the documentation of the module's code, in build/doc

##@ Measure
##  make bench              what it costs, in instructions, memory and time, beside the in-tree erofs (BENCH=--smoke: shorter)
##  make density            what containers cost in memory and instructions, one image and a fleet of twenty (part of make bench)
##  make pairs              what sharing saves of two releases of Debian and two wheels, beside what is possible
##  make plots              draw what make bench measured, for Documentation/
##  scripts/roots           a real system, compressed by each algorithm: read all of it
##  scripts/containerd      22 images of Debian, PyPI and npm through unmodified containerd; their files compared (--images: some)
.PHONY: test test-debug test-packages test-sanitize coverage check fmt doc bench density plots pairs
bench: module
	@scripts/bench $(BENCH)
	$(if $(BENCH),,scripts/density)
density: module
	@scripts/density $(DENSITY)
pairs: module
	@scripts/pairs
plots:
	@scripts/plots
test: setup module
	@scripts/test
.PHONY: test-kernels
test-kernels: setup
	@scripts/test-kernels
test-debug: setup debug-module
	@scripts/test-debug $(TEST_DEBUG)
test-packages: module
	@set +e
	. scripts/tally
	mkdir -p $(B)/log
	for part in packages packages_dkms packages_guest; do
		tally $(B)/log/test-$$part.log tests/$$part.sh
	done
	total
test-sanitize: setup-build
	@scripts/sanitize.sh
coverage: setup-build
	@scripts/coverage.sh
check: setup-build setup-lint
	@scripts/check
fmt: setup-build
	@scripts/check --fix
doc: setup-build
	@scripts/rustdoc

##@ Clean up
##  make clean              remove what was compiled and the logs
##  make distclean          remove build/ with the Debian trees too
.PHONY: clean distclean
clean:
	@rm -rf $(MODULE) $(B)/kernels/*/module $(B)/kernels/*/erofs_shared.ko $(B)/module $(B)/module-kdir $(B)/module-debug $(B)/debug $(B)/clippy $(B)/doc $(B)/cargo-target $(B)/sanitize $(B)/coverage $(B)/vm $(B)/log
distclean:
	@if grep -F " $(CURDIR)/$(B)/" /proc/self/mounts; then
		echo "these are mounted in build/; unmount them first" >&2
		exit 1
	fi
	rm -rf --one-file-system $(B)

.PHONY: help
help:
	@sed -n 's/^##@ \(.*\)/\n\1/p; s/^##  /  /p' Makefile | sed 1d
