// Package jobs holds the fio jobs of bench/compare, one file for each pattern. They can be
// run by hand as well: each says how in its first lines. What is varied comes from the
// environment, as fio allows.
package jobs

import "embed"

// Files are the job files.
//
//go:embed *.fio
var Files embed.FS
