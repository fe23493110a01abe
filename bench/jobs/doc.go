// Package jobs holds the fio jobs of bench/compare, one file for each pattern. They can also be run
// by hand; the first lines of each file show how. Parameters come from the environment, which fio
// supports.
package jobs

import "embed"

// Files are the job files.
//
//go:embed *.fio
var Files embed.FS
