// Package programs runs programs of other projects on a mount: stress-ng, dbench, bonnie++,
// PostgreSQL, tar, rsync, and the kernel's own overlayfs.
//
// A program's failure on the mount may occur on every filesystem. So a stressor, a copy or a
// sequence of calls runs first on a control, ext4 on a loop device (tmpfs where that does not
// work), and the mount must give the same result. Intended differences are listed in tables, each
// with its reason; those tables are the answer to "in what does daxfsd differ from ext4?".
//
// The package owns only its tests; test/harness mounts and unmounts. Everything has a time limit,
// and nothing outlives its test: the mounts are in a namespace of the tests, and servers are always
// stopped.
//
// The default takes about three minutes. -long gives the stressors more time, unpacks a tree as
// large as the kernel's, and runs the databases and file servers for longer.
package programs
