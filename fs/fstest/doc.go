// Package fstest is a mounted filesystem for tests: a Volume over a region, usually in memory. Its
// methods do what prepares a test, and fail the test if that does not succeed. Names are paths from
// the root. Files are inode numbers, as in package fs, so a test can use a file that has lost its
// name. Operations whose errors matter are called on Volume.FS.
//
// Create, Mknod, Mkdir and Symlink keep the lookup reference of their inode, as the kernel does.
// Looking up a path keeps no reference.
//
// Remount checks the filesystem: fsck must find nothing, and the mount by the saved free map must
// agree with the state before the unmount and with a scan.
//
// Only tests import this package.
package fstest
