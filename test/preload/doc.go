// Package preload runs programs that know nothing of daxfsd with libdaxfsd-preload, by `daxfsd
// run`, and compares what they see with what they see without it: a program of checks
// (lib/test/program.c), fio with verification, Python.
package preload
