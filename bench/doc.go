// Package bench holds the measurements of daxfsd: the Go benchmarks of the core without FUSE, in
// this directory; bench/compare, which measures daxfsd and direct mapping beside other filesystems;
// bench/mapped, which shows the pages and the speed of one file that is mapped directly;
// bench/ageing, which ages a filesystem and reports what large pages can still map; and
// bench/mounttime, which times mounts with and without the saved free map. Compare figures only
// within one run: machines are shared and noisy.
//
//	go test -bench . ./bench
//	go run ./bench/compare --quick
//	go run ./bench/mapped /mnt/file
//	go run ./bench/ageing --util 75 --seed 1
//	go run ./bench/mounttime
package bench
