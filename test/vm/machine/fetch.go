package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// ErrUnavailable is returned by Prepare, wrapped, if the host lacks a program, a mirror or a
// package. There is no guest then, which is not an error of daxfsd.
var ErrUnavailable = errors.New("the guest cannot be made here")

// programs lists the programs that this package runs, and their Debian packages.
var programs = [][2]string{{"qemu-system-x86_64", "qemu-system-x86"}, {"apt-get", "apt"}, {"dpkg-deb", "dpkg"},
	{"depmod", "kmod"}, {"xz", "xz-utils"}, {"zstd", "zstd"}}

// find is exec.LookPath that also searches /usr/sbin and /sbin.
func find(program string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: %s is missing", ErrUnavailable, program)
}

func needPrograms() error {
	for _, p := range programs {
		if _, err := find(p[0]); err != nil {
			return fmt.Errorf("%w: run `make deps-vm` (Debian: %s)", err, p[1])
		}
	}
	return nil
}

// run runs a program in dir and returns its output. The error includes what it printed on standard
// error.
func run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	p, err := find(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(bad.Bytes()))
	}
	return out.Bytes(), nil
}

// mirror returns the address of a Debian archive: DAXFSD_VM_MIRROR, or the one that this machine's
// apt uses.
func mirror(ctx context.Context) (string, error) {
	if m := os.Getenv("DAXFSD_VM_MIRROR"); m != "" {
		return m, nil
	}
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(CREATED_BY) $(ORIGIN)|$(LABEL)|$(REPO_URI)")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	guess := ""
	for line := range strings.Lines(string(out)) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "Packages ")
		w := strings.Split(line, "|")
		switch {
		case !ok || len(w) != 3:
		case w[0] == "Debian" && w[1] == "Debian":
			return w[2], nil
		case guess == "" && path.Base(w[2]) == "debian": // apt-get update has never run on this machine
			guess = w[2]
		}
	}
	if guess == "" {
		return "", fmt.Errorf("%w: the apt of this machine knows no Debian mirror: set DAXFSD_VM_MIRROR to the address of one", ErrUnavailable)
	}
	return guess, nil
}

// fetch downloads the packages into dir. It uses a list of sources and an apt state of its own: it
// installs nothing, and the machine's package lists do not change.
func (p *pins) fetch(ctx context.Context, dir string) error {
	uri, err := mirror(ctx)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(state, sub), 0o755); err != nil {
			return err
		}
	}
	var list strings.Builder
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	for _, suite := range p.suites() {
		fmt.Fprintf(&list, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, uri, suite)
	}
	for name, text := range map[string]string{"sources.list": list.String(), "status": ""} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	options := []string{"-q", "-o", "Dir::State=" + state, "-o", "Dir::State::lists=" + state + "/lists", "-o", "Dir::State::status=" + state + "/status",
		"-o", "Dir::Cache=" + state + "/cache", "-o", "Dir::Etc::sourcelist=" + state + "/sources.list", "-o", "Dir::Etc::sourceparts=-",
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=2",
		"-o", "APT::Update::Error-Mode=any", "-o", "APT::Update::Post-Invoke::=", "-o", "Debug::NoLocking=1",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "-o", "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false", "-o", "Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::DEP-11-icons-large::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false", "-o", "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false"}
	if os.Geteuid() == 0 {
		options = append(options, "-o", "APT::Sandbox::User=root")
	}
	if _, err := run(ctx, dir, "apt-get", append(options, "update")...); err != nil {
		return fmt.Errorf("%w: reading what %s has of %s: %w", ErrUnavailable, uri, strings.Join(p.suites(), " and "), err)
	}
	args := append(options, "download")
	for _, pkg := range p.packages {
		args = append(args, pkg.name+"="+pkg.version)
	}
	if _, err := run(ctx, dir, "apt-get", args...); err != nil {
		return fmt.Errorf("%w: %s lacks some of the packages in test/vm/machine/pins; if the archive has newer versions, pin those: %w",
			ErrUnavailable, uri, err)
	}
	return nil
}
