package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/pmem"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"ro,dax=never", "takeover,atomic,noexec,,rw,ro"})
	if err != nil || !o.readOnly || !o.takeover || !o.atomic || o.dax != fusefs.DAXNever || !slices.Equal(o.kernel, []string{"noexec"}) {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := parseOptions([]string{"trace"}); err != nil || !o.trace || !slices.Contains(o.list(), "trace") || !slices.Equal(o.other, []string{"trace"}) {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := parseOptions([]string{"nopoll"}); err != nil || !o.noPoll || !slices.Contains(o.list(), "nopoll") || !slices.Equal(o.other, []string{"nopoll"}) {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := parseOptions(nil); err != nil || o.readOnly || o.atomic || o.dax != fusefs.DAXAlways {
		t.Errorf("no options: %+v, %v", o, err)
	}
	if o, err := parseOptions([]string{"strictatime,nodiratime,sync,nosymfollow"}); err != nil || !o.noDirAtime || !slices.Equal(o.kernel, []string{"sync", "nosymfollow"}) {
		t.Errorf("got %+v, %v", o, err)
	}
	for word, mode := range map[string]fs.DirectMode{"": fs.DirectWrite, "direct=rw": fs.DirectWrite, "direct=ro": fs.DirectRead, "direct=rw,direct=off": fs.DirectOff} {
		if o, err := parseOptions([]string{word}); err != nil || o.direct != mode || !slices.Contains(o.list(), "direct="+mode.String()) {
			t.Errorf("-o %q: %v, %v", word, o, err)
		}
	}
	for _, bad := range []string{"dax=sometimes", "direct", "direct=wo", "dax", "atomic2", "ro=1"} {
		_, err := parseOptions([]string{"ro," + bad})
		if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "dax=never") {
			t.Errorf("-o %s: error %v does not name it and the known ones", bad, err)
		}
	}
}

func TestFinishOptions(t *testing.T) {
	roots := pmem.Access{Perm: 0o600}
	users := pmem.Access{UID: 1000, Perm: 0o600}
	for _, c := range []struct {
		in     string
		root   bool
		region pmem.Access
		want   []string
		scan   bool
	}{
		{"", true, roots, []string{"default_permissions", "allow_other"}, false},
		{"", true, users, []string{"nodev", "nosuid", "default_permissions", "allow_other"}, true},
		{"strictatime,nodiratime", true, roots, []string{"strictatime", "nodiratime", "default_permissions", "allow_other"}, false},
		{"noatime,relatime,noatime", true, roots, []string{"noatime", "default_permissions", "allow_other"}, false},
		{"suid", true, users, []string{"nodev", "nosuid", "suid", "default_permissions", "allow_other"}, true},
		{"ro", false, users, []string{"nodev", "nosuid", "default_permissions", "ro"}, true},
		{"allow_other", false, roots, []string{"nodev", "nosuid", "allow_other", "default_permissions"}, false},
		{"", true, pmem.Access{Perm: 0o660, ACL: true}, []string{"nodev", "nosuid", "default_permissions", "allow_other"}, true},
		{"", true, pmem.Access{Perm: 0o660}, []string{"default_permissions", "allow_other"}, false},
		{"", true, pmem.Access{Perm: 0o660, GID: 6}, []string{"nodev", "nosuid", "default_permissions", "allow_other"}, true},
		{"", true, pmem.Access{Perm: 0o602}, []string{"nodev", "nosuid", "default_permissions", "allow_other"}, true},
		// The filesystem that the region is on passes its flags on.
		{"", true, pmem.Access{Perm: 0o600, NoSUID: true}, []string{"nosuid", "default_permissions", "allow_other"}, false},
		{"", true, pmem.Access{Perm: 0o600, NoDev: true}, []string{"nodev", "default_permissions", "allow_other"}, false},
		{"", true, pmem.Access{Perm: 0o600, NoExec: true}, []string{"noexec", "default_permissions", "allow_other"}, false},
		{"exec", true, pmem.Access{Perm: 0o600, NoExec: true}, []string{"noexec", "exec", "default_permissions", "allow_other"}, false},
	} {
		o, err := parseOptions([]string{c.in})
		if err != nil {
			t.Fatal(err)
		}
		o.finish(c.root, c.region)
		if !slices.Equal(o.kernel, c.want) || o.scan != c.scan {
			t.Errorf("-o %q (root %v, %+v): %v, scan %v, want %v, %v", c.in, c.root, c.region, o.kernel, o.scan, c.want, c.scan)
		}
	}
}
