// Package programs lets programs that nobody here wrote work on a mount: stress-ng,
// dbench, bonnie++, PostgreSQL, tar, rsync, and the kernel's own overlayfs.
//
// What a program finds wrong on the mount may be wrong everywhere. So a stressor, a copy or a
// sequence of calls runs first on a control, ext4 on a loop device (tmpfs where there is none), and
// the mount must do what the control did. Differences that are meant stand in a table, each
// with its reason; those tables are the answer to "in what does daxfsd differ from ext4?".
//
// It owns nothing but its tests; what mounts and takes mounts away is test/harness. Everything
// has a time limit, and nothing outlives its test: the mounts are in a namespace of the tests' own,
// and servers are stopped on every way out.
//
// The default takes about three minutes. -long gives the stressors more time, unpacks a tree as
// large as the kernel's, and lets the databases and file servers run for longer.
package programs
