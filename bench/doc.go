// Package bench holds what measures daxfsd: Go benchmarks of the core with no FUSE in
// between, here; bench/ageing, which ages a filesystem and says what large pages can
// still map; and bench/mounttime, which mounts by the saved free map and without it.
// Figures are compared within one run only: machines are shared and noisy.
//
//	go test -bench . ./bench
//	go run ./bench/ageing --util 75 --seed 1
//	go run ./bench/mounttime
package bench
