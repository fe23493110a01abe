package e2e

import (
	"os"
	"testing"

	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(posixEnv) != "" {
		os.Exit(m.Run()) // run one function of posixtest on a directory, see posix_test.go
	}
	harness.Main(m, harness.Children{
		"copy-unaligned": copyUnaligned,
		"mmap-write":     mmapWrite,
		"mmap-check":     mmapCheck,
		"mmap-watch":     mmapWatch,
		"many-create":    manyCreate,
		"many-list":      manyList,
		"many-stat":      manyStat,
		"many-delete":    manyDelete,
	})
}
