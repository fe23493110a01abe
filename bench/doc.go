// Package bench holds what measures daxfs: Go benchmarks of the core with no FUSE in
// between, here, and fio jobs in bench/jobs. Figures are compared within one run only:
// machines are shared and noisy.
//
//	go test -bench . ./bench
package bench
