# Two commands do everything on a fresh Debian machine with Go:
#
#   make demo   install what is missing, build, format and mount an emulated
#               region, run a verified fio job on it, print what happened, clean up
#   make test   install what is missing and run every test
#
# Others: make build (bin/daxfsd), make install (PREFIX, DESTDIR), make clean, and
# each step of make test by its name.

SHELL := /bin/bash
GO ?= go
PREFIX ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
DAXFSD := bin/daxfsd
LADDER := ./cmd/... ./fs/... ./pagecache/... ./refcnt/... ./hugepage/... ./pmem/... ./internal/...
CRASH_SEED ?= 1

export CGO_ENABLED = 0

.PHONY: all build demo test install clean deps-demo deps-test \
	fmt vet unit race fuzz arm64 ladder ageing crash mounted

all: build

build:
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(DAXFSD) ./cmd/daxfsd

install: build
	install -D -m 755 $(DAXFSD) $(DESTDIR)$(PREFIX)/bin/daxfsd
	install -D -m 644 deploy/daxfsd@.service $(DESTDIR)$(PREFIX)/lib/systemd/system/daxfsd@.service
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(PREFIX)/lib/systemd/system/daxfsd@.service

clean:
	rm -rf bin

deps-demo:
	@deploy/need fuse3:fusermount3 fio:fio

deps-test: deps-demo
	@deploy/need sqlite3:sqlite3 git:git attr:setfattr acl:setfacl util-linux:unshare \
		qemu-user:qemu-aarch64 gcc:gcc libc6-dev:/usr/include/stdio.h

demo: deps-demo build
	@deploy/demo $(DAXFSD)

# Each step has a budget on two cores; the whole is below 40 minutes.
# $(call step,name,seconds of budget,command)
define step
	@echo "== $(1)"; start=$$SECONDS; rc=0; { $(3); } || rc=$$?; took=$$((SECONDS - start)); \
	over=; [ $$took -le $(2) ] || over=" OVER BUDGET"; \
	[ $$rc -eq 0 ] && word=passed || word=FAILED; \
	printf '== %-8s %s, %d s of %d s%s\n' "$(1)" "$$word" $$took $(2) "$$over"; exit $$rc
endef

# In this order: what fails fast comes first. One step runs at a time, because the
# mounted ones measure time.
test:
	@start=$$SECONDS; \
	for s in deps-test fmt vet ladder build unit race fuzz arm64 ageing crash mounted; do \
		$(MAKE) --no-print-directory $$s || { echo "== make test FAILED in $$s after $$((SECONDS - start)) s"; exit 1; }; \
	done; \
	echo "== make test passed in $$((SECONDS - start)) s of 2400 s"

fmt:
	$(call step,fmt,5,bad=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); [ -z "$$bad" ] || { echo "gofmt these: $$bad"; false; })

vet:
	$(call step,vet,120,$(GO) vet ./... && $(GO) vet -tags invariants $(LADDER))

ladder:
	$(call step,ladder,20,$(GO) test -count=1 ./test/ladder)

unit:
	$(call step,unit,180,$(GO) test -count=1 -timeout 6m $(LADDER))

# The race detector sees only Go's own memory: under it the tests put the region there.
race:
	$(call step,race,240,CGO_ENABLED=1 $(GO) test -race -short -count=1 -timeout 8m $(LADDER) ./bench/... ./test/crash/... ./test/ladder)

# Every fuzz target for a while; what it finds is written to its package's testdata/fuzz,
# and kept there as a seed that make unit runs.
FUZZTIME ?= 10s
fuzz:
	$(call step,fuzz,150,for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -h '^func Fuzz' $$p/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9]*\).*/\1/'); do \
			$(GO) test -run='^$$' -fuzz="^$$f\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=5s $$p || { bad=$$f; break 2; }; done; done; [ -z "$$bad" ])

# arm64 is cross-built, and its persistence primitives run under emulation. It is
# untested on hardware.
arm64:
	$(call step,arm64,90,mkdir -p bin && GOARCH=arm64 $(GO) build -o bin/daxfsd.arm64 ./cmd/daxfsd && \
		GOARCH=arm64 $(GO) test -c -o bin/pmem.arm64.test ./pmem && \
		cd pmem && timeout 180 qemu-aarch64 -cpu cortex-a72 ../bin/pmem.arm64.test -test.short)

crash:
	$(call step,crash,300,timeout 900 $(GO) run ./test/crash -seed $(CRASH_SEED))

# Programs that nobody here wrote, on a mount: cp, git, sqlite, go build, fio, kill -9,
# go-fuse's posixtest, a million files.
# How much large pages can still map of an aged filesystem; docs/ageing.md.
ageing:
	$(call step,ageing,120,$(GO) run ./bench/ageing --util 75 --check && $(GO) run ./bench/ageing --util 90 --check)

mounted: build
	$(call step,mounted,960,$(GO) test -count=1 -timeout 30m ./test/mounted/...)
