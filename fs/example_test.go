package fs_test

import (
	"fmt"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// A filesystem in memory: format, mount, create a file, write it, read it, unmount. Errors of
// operations are error numbers, 0 for success.
func Example() {
	r, err := pmem.NewMemory(fs.MinSize)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	if _, err := fs.Mkfs(r, fs.MkfsOptions{Label: "example"}); err != nil {
		panic(err)
	}
	f, err := fs.Mount(r, fs.Options{})
	if err != nil {
		panic(err)
	}

	const root = 1 // the inode number of the root directory
	var ctx fs.Caller
	var a fs.Attr
	if e := f.Mknod(&ctx, root, "greeting", syscall.S_IFREG|0o644, 0, &a); e != 0 {
		panic(e)
	}
	if _, e := f.Write(&ctx, a.Ino, 0, []byte("hello, region")); e != 0 { // durable when it returns
		panic(e)
	}
	f.Forget(a.Ino, 1) // Mknod referenced the inode, as FUSE counts lookups

	if e := f.Lookup(&ctx, root, "greeting", &a); e != 0 {
		panic(e)
	}
	pin := f.NewPinnedRead()
	if e := f.Read(&ctx, a.Ino, 0, int(a.Size), pin); e != 0 {
		panic(e)
	}
	for _, b := range pin.Slices() { // the region itself, until Done
		fmt.Printf("%s\n", b)
	}
	pin.Done()
	pin.Free()
	fmt.Println(f.Unlink(&ctx, root, "no such file") == syscall.ENOENT)

	f.Forget(a.Ino, 1)
	if err := f.Unmount(); err != nil {
		panic(err)
	}
	// Output:
	// hello, region
	// true
}
