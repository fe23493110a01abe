package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/daxfs/daxfs/fs/fusefs"
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
	if o, err := parseOptions([]string{"strictatime,nodiratime,sync,nosymfollow"}); err != nil || !o.noDirs || !slices.Equal(o.kernel, []string{"sync", "nosymfollow"}) {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, bad := range []string{"dax=sometimes", "dax", "atomic2", "ro=1"} {
		_, err := parseOptions([]string{"ro," + bad})
		if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "dax=never") {
			t.Errorf("-o %s: error %v does not name it and the known ones", bad, err)
		}
	}
}

func TestFinishOptions(t *testing.T) {
	for _, c := range []struct {
		in            string
		root, trusted bool
		want          []string
	}{
		{"", true, true, []string{"default_permissions", "allow_other"}},
		{"", true, false, []string{"nosuid", "nodev", "default_permissions", "allow_other"}},
		{"strictatime,nodiratime", true, true, []string{"strictatime", "nodiratime", "default_permissions", "allow_other"}},
		{"noatime,relatime,noatime", true, true, []string{"noatime", "default_permissions", "allow_other"}},
		{"suid", true, false, []string{"nosuid", "nodev", "suid", "default_permissions", "allow_other"}},
		{"ro", false, false, []string{"nosuid", "nodev", "default_permissions", "ro"}},
		{"allow_other", false, true, []string{"nosuid", "nodev", "allow_other", "default_permissions"}},
	} {
		o, err := parseOptions([]string{c.in})
		if err != nil {
			t.Fatal(err)
		}
		o.finish(c.root, c.trusted)
		if !slices.Equal(o.kernel, c.want) {
			t.Errorf("-o %q (root %v, trusted %v): %v, want %v", c.in, c.root, c.trusted, o.kernel, c.want)
		}
	}
}
