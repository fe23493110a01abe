package main

import (
	"slices"
	"strings"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/pmem"
)

// mountOptions holds the values of -o.
type mountOptions struct {
	scan       bool // read all inodes even if a free map is saved
	readOnly   bool
	remount    bool
	takeover   bool
	atomic     bool
	noPoll     bool // threads do not wait awake between requests
	trace      bool // a line in the log for each request
	dax        fusefs.DAX
	direct     fs.DirectMode // grants of files' own memory, as asked for; see grants
	directSet  bool          // direct was given, and is not off
	noDirect   bool          // the mount cannot make grants
	via        fusefs.Transport
	atime      fs.Atime
	noDirAtime bool     // reading a directory does not update its access time
	kernel     []string // options for mount(2), in the order given

	readOnlyGiven bool     // ro or rw was given
	other         []string // the given options that a remount cannot change
}

// knownOptions lists the words that -o accepts, for the error message.
var knownOptions = []string{
	"ro", "rw", "dax=always", "dax=never", "dax=inode", "direct=rw", "direct=ro", "direct=off", "transport=auto", "transport=uring", "transport=dev", "nopoll", "atomic", "trace", "takeover", "allow_other", "default_permissions",
	"noatime", "relatime", "strictatime", "nodiratime", "diratime", "sync", "dirsync", "async", "nosymfollow", "symfollow", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "remount", "defaults",
}

// parseOptions reads the values of all -o flags, each a list separated by commas. Of two words that
// contradict each other the last one counts, as with mount(8).
func parseOptions(flags []string) (*mountOptions, error) {
	opts := &mountOptions{direct: fs.DirectWrite}
	for _, word := range strings.Split(strings.Join(flags, ","), ",") {
		switch word = strings.TrimSpace(word); word {
		case "takeover", "nopoll", "atomic", "trace", "dax=always", "dax=never", "dax=inode", "direct=rw", "direct=ro", "direct=off", "transport=auto", "transport=uring", "transport=dev", "relatime", "strictatime", "noatime", "diratime", "nodiratime":
			opts.other = append(opts.other, word)
		}
		switch word {
		case "", "defaults":
		case "remount":
			opts.remount = true
		case "relatime":
			opts.atime = fs.Relatime
		case "strictatime":
			opts.atime = fs.Strictatime
		case "noatime":
			opts.atime = fs.Noatime
		case "diratime", "nodiratime":
			opts.noDirAtime = word == "nodiratime"
		case "ro", "rw":
			opts.readOnly, opts.readOnlyGiven = word == "ro", true
		case "takeover":
			opts.takeover = true
		case "atomic":
			opts.atomic = true
		case "nopoll":
			opts.noPoll = true
		case "trace":
			opts.trace = true
		case "dax=always":
			opts.dax = fusefs.DAXAlways
		case "dax=never":
			opts.dax = fusefs.DAXNever
		case "dax=inode":
			opts.dax = fusefs.DAXInode
		case "direct=rw":
			opts.direct, opts.directSet = fs.DirectWrite, true
		case "direct=ro":
			opts.direct, opts.directSet = fs.DirectRead, true
		case "direct=off":
			opts.direct, opts.directSet = fs.DirectOff, false
		case "transport=auto":
			opts.via = fusefs.TransportAuto
		case "transport=uring":
			opts.via = fusefs.TransportUring
		case "transport=dev":
			opts.via = fusefs.TransportDev
		case "allow_other", "default_permissions":
			if !slices.Contains(opts.kernel, word) {
				opts.kernel = append(opts.kernel, word)
			}
		default:
			if _, _, ok := fusefs.FlagOption(word); ok {
				if !slices.Contains(opts.kernel, word) {
					opts.kernel = append(opts.kernel, word)
				}
				continue
			}
			return nil, usagef("unknown mount option %q: known are %s", word, strings.Join(knownOptions, ", "))
		}
	}
	return opts, nil
}

// finish adds the defaults. The kernel always checks permissions. A mount by root is open to
// everyone. It allows set-user-ID programs and devices, like any filesystem that root mounts,
// unless anyone else could have written them into the region or the filesystem that the region is
// on forbids them. If anyone but root can write to the region, the saved free map is not trusted
// either.
func (o *mountOptions) finish(root bool, region pmem.Access) {
	add := func(words ...string) {
		for _, w := range words {
			if !slices.Contains(o.kernel, w) {
				o.kernel = append(o.kernel, w)
			}
		}
	}
	o.scan = !region.OnlyRoot()
	foreign := !root || !region.OnlyRoot()
	for _, f := range []struct {
		word string
		is   bool
	}{{"nosuid", foreign || region.NoSUID}, {"nodev", foreign || region.NoDev}, {"noexec", region.NoExec}} {
		if f.is {
			o.kernel = slices.Insert(o.kernel, 0, f.word) // a given option comes later and counts
		}
	}
	switch o.atime { // so that the mount table shows it
	case fs.Noatime:
		add("noatime")
	case fs.Strictatime:
		add("strictatime")
	}
	if o.noDirAtime {
		add("nodiratime")
	}
	add("default_permissions")
	if root {
		add("allow_other")
	}
	if o.readOnly {
		add("ro")
	}
}

// grants returns which grants the mount makes: with atomic none to write, since a program's stores
// are not all or nothing.
func (o *mountOptions) grants() fs.DirectMode {
	switch {
	case o.noDirect:
		return fs.DirectOff
	case o.atomic:
		return min(o.direct, fs.DirectRead)
	}
	return o.direct
}

// list returns the options for `info`: those given or chosen. A remount that repeats them changes
// nothing.
func (o *mountOptions) list() []string {
	l := []string{"rw", "dax=" + o.dax.String(), "direct=" + o.direct.String(), "transport=" + o.via.String()}
	if o.readOnly {
		l[0] = "ro"
	}
	l = append(l, [...]string{"relatime", "strictatime", "noatime"}[o.atime])
	if o.atomic {
		l = append(l, "atomic")
	}
	if o.noPoll {
		l = append(l, "nopoll")
	}
	if o.takeover {
		l = append(l, "takeover")
	}
	if o.trace {
		l = append(l, "trace")
	}
	for _, w := range o.kernel {
		if w != "ro" && !slices.Contains(l, w) {
			l = append(l, w)
		}
	}
	return l
}
