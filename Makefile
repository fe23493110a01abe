# Two commands do everything on a fresh Debian machine with Go:
#
#   make demo   install missing packages, build, format and mount an emulated region, run a
#               verified fio job on it, map a file's own memory, print what happened, clean up
#   make test   install missing packages and run all tests
#
# make test-long runs for hours what make test runs a sample of: 200 rounds of kill -9, random tests
# with more cases, ageing with more seeds, the crash explorer with all its mutants and far higher
# limits; PostgreSQL, dbench, bonnie++, stress-ng, large trees and overlayfs (make programs runs a
# sample); ten times as many power cuts, and the whole of test/posix in a guest.
#
# make bench compares daxfsd with tmpfs, ext4 and go-fuse for two hours. BENCH=--quick takes a
# minute, to see that it works.
#
# Others: make build (bin/daxfsd), make install (PREFIX, DESTDIR), make clean, and each step of make
# test by its name.

SHELL := /bin/bash
GO ?= go
PREFIX ?= /usr/local
VERSION := $(shell sed -n 's/^const release = "\(.*\)"/\1/p' cmd/daxfsd/version.go)
COMMIT ?= $(shell git describe --always --dirty --exclude="*" --abbrev=12 2>/dev/null)
DAXFSD := bin/daxfsd
LAYERS := ./cmd/... ./direct/... ./fs/... ./pagecache/... ./refcnt/... ./hugepage/... ./pmem/... ./internal/...
CRASH_SEED ?= 1
# 0: a new seed each time, which the test prints.
KILL_SEED ?= 0
# Not in go.mod: the project imports no package of staticcheck.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The flags of make bench; see go run ./bench/compare --help.
BENCH ?= --full
# The VM tests write this file when they cannot run.
VM_NOT_RUN := $(CURDIR)/bin/vm-did-not-run

# The C library is built where there is a compiler and a copy routine for the machine.
LIB_ARCH := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
HAVE_CC := $(and $(wildcard lib/copy_$(LIB_ARCH).S),$(shell command -v $(CC)))
LIB_OBJECTS := $(patsubst %,bin/lib/%.o,file table window lease mapping range guard copy_$(LIB_ARCH))
PRELOAD_OBJECTS := $(patsubst %,bin/lib/%.o,table window lease range guard copy_$(LIB_ARCH)) $(patsubst lib/%.c,bin/lib/%.o,$(wildcard lib/preload/*.c))
LIB_HEADERS := $(wildcard lib/*.h lib/preload/*.h)
LIB_CFLAGS := -std=gnu11 -Wall -Wextra -O2 -g -fPIC -fvisibility=hidden -pthread

export CGO_ENABLED = 0

.PHONY: all build lib demo bench test test-long install clean deps-demo deps-test deps-programs deps-vm test-vm vm-long vm-posix vm-cut \
	lint check unit race fuzz arm64 ageing crash kill grants random posix e2e programs \
	races races-long kill-long grants-long crash-long ageing-long stress-long random-long programs-long modes-long

all: build

build: $(if $(HAVE_CC),lib)
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-X main.commit=$(COMMIT)' -o $(DAXFSD) ./cmd/daxfsd

# The C library, where there is a compiler for it.
lib: bin/libdaxfsd.so.1 bin/libdaxfsd.a bin/libdaxfsd-preload.so

bin/lib/%.o: lib/%.c $(LIB_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(LIB_CFLAGS) $(CFLAGS) -c -o $@ $<

bin/lib/%.o: lib/%.S
	@mkdir -p bin/lib
	$(CC) $(CFLAGS) -c -o $@ $<

bin/libdaxfsd.so.1: $(LIB_OBJECTS) lib/libdaxfsd.map
	$(CC) -shared -Wl,-soname,libdaxfsd.so.1 -Wl,--version-script=lib/libdaxfsd.map -Wl,-z,defs -Wl,-z,now $(LDFLAGS) -o $@ $(LIB_OBJECTS) -pthread

bin/libdaxfsd-preload.so: $(PRELOAD_OBJECTS)
	$(CC) -shared -Wl,-soname,libdaxfsd-preload.so -Wl,-z,defs -Wl,-z,now $(LDFLAGS) -o $@ $(PRELOAD_OBJECTS) -pthread -ldl

bin/libdaxfsd.a: $(LIB_OBJECTS)
	rm -f $@
	$(AR) rcs $@ $(LIB_OBJECTS)

install: build
	install -D -m 755 $(DAXFSD) $(DESTDIR)$(PREFIX)/bin/daxfsd
	install -D -m 644 deploy/daxfsd@.service $(DESTDIR)$(PREFIX)/lib/systemd/system/daxfsd@.service
	install -D -m 644 deploy/70-daxfsd.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d/70-daxfsd.rules
	install -D -m 644 deploy/daxfsd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/daxfsd.conf
	install -d $(DESTDIR)/sbin
	for n in mount.daxfsd mount.fuse.daxfsd umount.daxfsd umount.fuse.daxfsd; do ln -sf $(PREFIX)/bin/daxfsd $(DESTDIR)/sbin/$$n; done
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(PREFIX)/lib/systemd/system/daxfsd@.service
ifneq ($(HAVE_CC),)
	install -D -m 644 bin/libdaxfsd.so.1 $(DESTDIR)$(PREFIX)/lib/libdaxfsd.so.1
	install -D -m 644 bin/libdaxfsd-preload.so $(DESTDIR)$(PREFIX)/lib/libdaxfsd-preload.so
	ln -sf libdaxfsd.so.1 $(DESTDIR)$(PREFIX)/lib/libdaxfsd.so
	install -D -m 644 bin/libdaxfsd.a $(DESTDIR)$(PREFIX)/lib/libdaxfsd.a
	install -D -m 644 lib/daxfsd.h $(DESTDIR)$(PREFIX)/include/daxfsd.h
	install -D -m 644 lib/daxfsd.3 $(DESTDIR)$(PREFIX)/share/man/man3/daxfsd.3
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' lib/daxfsd.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/daxfsd.pc
endif

clean:
	rm -rf bin

deps-demo:
	@deploy/need fuse3:fusermount3 fio:fio

deps-test: deps-demo
	@deploy/need e2fsprogs:mkfs.ext4 sqlite3:sqlite3 git:git attr:setfattr acl:setfacl util-linux:unshare \
		qemu-user:qemu-aarch64 gcc:gcc pkg-config:pkg-config python3:python3 libc6-dev:/usr/include/stdio.h

deps-programs: deps-test
	@deploy/need stress-ng:stress-ng dbench:dbench bonnie++:bonnie++ rsync:rsync e2fsprogs:mkfs.ext4 \
		mount:mount postgresql:/usr/lib/postgresql

# Run this on an idle machine. It writes the report to bin/bench.html, .json, .md and .svg, and
# plots to bin/bench/.
bench: deps-demo
	@deploy/need git:git tar:tar e2fsprogs:mkfs.ext4 mount:mount
	@mkdir -p bin
	$(GO) run ./bench/compare $(BENCH) --json bin/bench.json --html bin/bench.html --markdown bin/bench.md --plots bin/bench --figure bin/bench.svg

# Without these packages the VM tests report that they did not run.
deps-vm:
	@deploy/need qemu-system-x86:qemu-system-x86_64 kmod:depmod xz-utils:xz zstd:zstd || echo "deps-vm: without these there is no guest"

demo: deps-demo build
	@$(GO) build -trimpath -o bin/mapped ./bench/mapped
	@deploy/demo $(DAXFSD) bin/mapped

# Each step has a budget in seconds, for an idle machine with two cores: a third more than it takes
# there. All steps together take less than 40 minutes.
# $(call step,name,budget in seconds,command)
define step
	@echo "== $(1)"; start=$$SECONDS; rc=0; { $(3); } || rc=$$?; took=$$((SECONDS - start)); \
	over=; [ $$took -le $(2) ] || over=" OVER BUDGET"; \
	[ $$rc -eq 0 ] && word=passed || word=FAILED; \
	printf '== %-8s %s, %d s of %d s%s\n' "$(1)" "$$word" $$took $(2) "$$over"; exit $$rc
endef

# The steps that fail fast come first. They run one at a time, because those with mounts measure
# time.
test:
	@start=$$SECONDS; \
	for s in deps-test lint build unit race fuzz arm64 ageing crash kill grants random posix races e2e test-vm; do \
		$(MAKE) --no-print-directory $$s || { echo "== make test FAILED in $$s after $$((SECONDS - start)) s"; exit 1; }; \
	done; \
	echo "== make test passed in $$((SECONDS - start)) s of 2400 s"; \
	[ ! -e $(VM_NOT_RUN) ] || cat $(VM_NOT_RUN)

# Run this before every commit: the checks of lint, and the unit tests.
check: lint unit

# gofmt, go vet, staticcheck, and ./internal/lint: imports and their order, the width of comments,
# links between documents.
lint:
	$(call step,lint,180,bad=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); [ -z "$$bad" ] || { echo "gofmt these: $$bad"; false; } && \
		$(GO) vet ./... && $(GO) vet -tags invariants $(LAYERS) && $(GO) test -count=1 ./internal/lint && \
		GOBIN=$(CURDIR)/bin $(GO) install $(STATICCHECK) && bin/staticcheck ./... && GOARCH=arm64 bin/staticcheck ./pmem)

unit:
	$(call step,unit,180,$(GO) test -count=1 -timeout 6m $(LAYERS) ./test/golden)

# The race detector sees only Go's own memory, so under it the tests put the region there.
race:
	$(call step,race,340,CGO_ENABLED=1 $(GO) test -race -short -count=1 -timeout 8m $(LAYERS) ./bench/... ./test/crash/...)

# Every fuzz target runs for a while. An input that fails is written to testdata/fuzz of its
# package, and kept there as a seed that make unit runs. The length is a count, not a time: when the
# time is up, Go before 1.27 sometimes reports a failure (go.dev/issue/75804). A case of fsck's
# targets is a mount and an fsck, of FuzzCraft five mounts and three fscks, of the others one call.
FUZZ_FSCK ?= 4000x
FUZZ_CRAFT ?= 600x
FUZZ_CALLS ?= 200000x
fuzz:
	$(call step,fuzz,130,for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		n=$(FUZZ_CALLS); [ $${p##*/} != fsck ] || n=$(FUZZ_FSCK); \
		m=$$n; for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$p/*_test.go); do \
			n=$$m; k=200x; [ $$f != FuzzCraft ] || { n=$(FUZZ_CRAFT); k=10x; }; \
			$(GO) test -run='^$$' -fuzz="^$$f\$$" -fuzztime=$$n -fuzzminimizetime=$$k $$p || { bad=$$f; break 2; }; done; done; [ -z "$$bad" ])

# arm64 is cross-built, and its persistence primitives run under emulation. It is not tested on
# hardware.
arm64:
	$(call step,arm64,50,mkdir -p bin && GOARCH=arm64 $(GO) build -o bin/daxfsd.arm64 ./cmd/daxfsd && \
		GOARCH=arm64 $(GO) test -c -o bin/pmem.arm64.test ./pmem && \
		cd pmem && timeout 180 qemu-aarch64 -cpu cortex-a72 ../bin/pmem.arm64.test -test.short)

crash:
	$(call step,crash,410,timeout 900 $(GO) run ./test/crash -seed $(CRASH_SEED))

# Measures how much of an aged filesystem large pages can still map; see docs/ageing.md.
ageing:
	$(call step,ageing,150,$(GO) run ./bench/ageing --util 75 --seeds 3 --check && $(GO) run ./bench/ageing --util 90 --seeds 3 --check)

# Kills the daemon under load, in recovery and in unmount.
kill:
	$(call step,kill,75,$(GO) test -count=1 -timeout 10m -v ./test/kill -seed $(KILL_SEED))

# Programs that map files' own memory: killed, left by the daemon, at odds with each other.
grants:
	$(call step,grants,60,$(GO) test -count=1 -timeout 10m ./test/grants -seed $(KILL_SEED))

# Random operations on files and on names, compared with models, in both cache modes.
random:
	$(call step,random,310,$(GO) test -count=1 -timeout 15m ./test/random -duration 2m)

# One table of system calls and their errors, on daxfsd in each of its modes. ext4 and tmpfs run it
# too, to verify the table.
posix:
	$(call step,posix,125,$(GO) test -count=1 -timeout 20m ./test/posix)

# All pairs of operations race on one page of one file, for some ms each, on daxfsd in each cache
# mode and on ext4.
races:
	$(call step,races,60,$(GO) test -count=1 -timeout 10m ./test/races)

# Programs from outside this project, on a mount: cp, git, sqlite, go build, fio, go-fuse's
# posixtest, a million files. After them a quick run of bench/compare, which enables FUSE over
# io_uring for the whole machine, as some of them do.
e2e:
	$(call step,e2e,560,$(GO) test -count=1 -timeout 30m ./test/e2e && $(GO) test -count=1 -timeout 10m ./test/attack && $(GO) test -count=1 -p 1 -timeout 10m ./test/lib ./test/preload && $(GO) test -count=1 -timeout 10m ./test/direct && $(GO) test -count=1 -timeout 10m ./bench/compare)

# In guests with emulated persistent memory: device-dax with 2 MiB and 1 GiB pages, fsdax,
# virtio-pmem; the power cut. If no guest can be made (no mirror, no QEMU), the tests report that
# they did not run, here and at the end of make test; if CI is set, that is a failure. The first run
# fetches 60 MB of Debian packages.
test-vm: deps-vm
	$(call step,test-vm,480,mkdir -p bin && rm -f $(VM_NOT_RUN) && DAXFSD_VM_NOT_RUN=$(VM_NOT_RUN) $(GO) test -count=1 -timeout 30m -p 1 ./test/vm/machine ./test/vm && \
		{ [ ! -e $(VM_NOT_RUN) ] || cat $(VM_NOT_RUN); })

# The whole of test/posix on a real /dev/dax0.0, and 50 power cuts.
vm-long: vm-posix vm-cut

# $(call guests,name,budget in seconds,arguments): fails if no guest can be made.
define guests
	$(call step,$(1),$(2),mkdir -p bin && rm -f $(VM_NOT_RUN); DAXFSD_VM_NOT_RUN=$(VM_NOT_RUN) $(GO) test -count=1 -timeout 3h -v ./test/vm $(3) && \
		{ [ ! -e $(VM_NOT_RUN) ] || { cat $(VM_NOT_RUN); false; }; })
endef

vm-posix: deps-vm
	$(call guests,vm-posix,3600,-run TestPosix -long)

vm-cut: deps-vm
	$(call guests,vm-cut,3600,-run TestPowerCut -rounds 50)

# More programs, with servers and kernel drivers: stress-ng, dbench, bonnie++, PostgreSQL,
# overlayfs, tar, rsync; compared with ext4.
programs: deps-programs
	$(call step,programs,300,$(GO) test -count=1 -timeout 20m -v ./test/e2e/programs)

programs-long: deps-programs
	$(call step,programs,2700,$(GO) test -count=1 -timeout 120m -v ./test/e2e/programs -long)

# The budgets of these steps are guesses for an idle machine with two cores.
test-long:
	@start=$$SECONDS; \
	for s in deps-test kill-long grants-long random-long races-long programs-long modes-long stress-long ageing-long vm-long crash-long; do \
		$(MAKE) --no-print-directory $$s || { echo "== make test-long FAILED in $$s after $$((SECONDS - start)) s"; exit 1; }; \
	done; \
	echo "== make test-long passed in $$((SECONDS - start)) s"

kill-long:
	$(call step,kill,1800,$(GO) test -count=1 -timeout 75m -v ./test/kill -rounds 200 -seed $(KILL_SEED))

grants-long:
	$(call step,grants,3600,$(GO) test -count=1 -timeout 90m -v ./test/grants -rounds 200 -restarts 50 -ops 20000 -passes 100000 -seed $(KILL_SEED))

random-long:
	$(call step,random,7200,$(GO) test -count=1 -timeout 3h ./test/random -run TestFile -v -ops 1000000 -seeds 50 && \
		$(GO) test -count=1 -timeout 1h ./test/random -run TestNames -v -duration 20m)

races-long:
	$(call step,races,1800,$(GO) test -count=1 -timeout 60m -v ./test/races -each 1s -stopped 20 -lost 200)

# The mounted tests of make test, with each of the options that are not the default. test/posix
# covers all options itself.
modes-long: deps-programs
	$(call step,modes,10800,(for o in dax=never dax=inode; do echo "-- $$o"; export DAXFSD_TEST_OPTIONS=$$o; \
		$(GO) test -count=1 -timeout 45m ./test/e2e && $(GO) test -count=1 -timeout 120m ./test/e2e/programs -long && \
		$(GO) test -count=1 -timeout 30m ./test/kill || exit 1; done))

# The race detector without -short (except for regions whose folio table does not fit into Go's
# memory), far more random cases, and more inputs from the fuzzer.
stress-long:
	$(call step,stress,3600,CGO_ENABLED=1 $(GO) test -race -count=3 -timeout 40m -skip 'TestRegionSizes|TestSoak|TestGrantCost' $(LAYERS) && \
		$(GO) test -count=1 -timeout 40m ./fs -run TestGrantStress -grant-stress 5m && \
		$(GO) test -count=1 -timeout 40m ./refcnt ./hugepage ./pagecache -run Model -rapid.checks=20000 && \
		$(GO) test -run '^$$' -fuzz FuzzDamage -fuzztime 200000x ./fs/fsck && \
		$(GO) test -run '^$$' -fuzz FuzzCraft -fuzztime 50000x -fuzzminimizetime 10x ./fs/fsck && \
		$(GO) test -count=1 -timeout 40m ./fs -run TestSoak -soak-ops 100000000 && \
		$(GO) test -count=1 -timeout 40m ./test/e2e -run TestSoak -soak-steps 500000 && \
		$(GO) test -count=1 -timeout 40m ./test/attack -long)

# Other seeds than those of make test.
ageing-long:
	$(call step,ageing,360,(for seed in 2 3 4; do for util in 75 90; do \
		$(GO) run ./bench/ageing --util $$util --seed $$seed --check || exit 1; done; done))

crash-long:
	$(call step,crash,14400,timeout 6h $(GO) run ./test/crash -full -seed $(CRASH_SEED))

