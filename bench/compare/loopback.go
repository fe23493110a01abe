package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/spf13/cobra"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// errNoPassthrough is returned if the kernel does not offer passthrough.
var errNoPassthrough = errors.New("this kernel does not support FUSE passthrough, which needs Linux 6.9")

// serveCommand returns the hidden command that serves a contender other than daxfsd.
func serveCommand() *cobra.Command {
	var backing string
	var size int64
	c := &cobra.Command{
		Use: "serve CONTENDER MOUNTPOINT", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, a []string) error {
			switch a[0] {
			case "null-dev":
				return serveNull(a[1], size, false)
			case "null-uring":
				return serveNull(a[1], size, true)
			}
			return serveLoopback(a[0], backing, a[1])
		},
	}
	c.Flags().StringVar(&backing, "backing", "", "directory that a loopback serves")
	c.Flags().Int64Var(&size, "size", 0, "bytes of each of the null bound's files")
	return c
}

// loopbackNode is go-fuse's loopback node, with other FOPEN_* flags.
type loopbackNode struct {
	fs.LoopbackNode
	flags uint32 // FOPEN_*; immutable
}

// WrapChild makes every node below the root a loopbackNode.
func (n *loopbackNode) WrapChild(_ context.Context, _ fs.InodeEmbedder) fs.InodeEmbedder {
	return &loopbackNode{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, flags: n.flags}
}

// Open opens the backing file.
func (n *loopbackNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, ff, e := n.LoopbackNode.Open(ctx, flags)
	return f, ff | n.flags, e
}

// Create creates the backing file.
func (n *loopbackNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	in, f, ff, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, f, ff | n.flags, e
}

// serveLoopback serves go-fuse's loopback of backing, tuned as well as possible: names and
// attributes stay valid for an hour, requests are as large as daxfsd's, and as many run at a time.
// There are no xattrs, which the kernel otherwise asks for before each write, and there is no
// splice, which takes more system calls.
func serveLoopback(name, backing, mountpoint string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return err
	}
	root := &loopbackNode{LoopbackNode: fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: backing, Dev: uint64(st.Dev)}}}
	hour := time.Hour
	options := &fs.Options{
		EntryTimeout: &hour, AttrTimeout: &hour, NegativeTimeout: &hour,
		MountOptions: fuse.MountOptions{
			FsName: name, Name: "compare", AllowOther: true,
			MaxWrite: transport.MaxIO, MaxReadAhead: transport.MaxIO, MaxBackground: 256,
			DirectMountStrict: true, DisableXAttrs: true, DisableSplice: true,
			ExtraCapabilities:    fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_PARALLEL_DIROPS | fuse.CAP_READDIRPLUS_AUTO,
			DisabledCapabilities: fuse.CAP_PASSTHROUGH,
			Logger:               log.New(io.Discard, "", 0),
		},
	}
	switch name {
	case "loopback":
		root.flags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	case "loopback-cached":
		root.flags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
		options.ExplicitDataCacheControl = true
	case "passthrough":
		root.flags = fuse.FOPEN_NOFLUSH
		options.DisabledCapabilities = 0
	default:
		return fmt.Errorf("no contender is named %q", name)
	}
	server, err := fuse.NewServer(fs.NewNodeFS(root, options), mountpoint, &options.MountOptions)
	if err != nil {
		return err
	}
	if name == "passthrough" && server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		fmt.Fprintln(os.Stderr, errNoPassthrough)
		os.Exit(exitUnavailable)
	}
	server.Serve()
	return nil
}
