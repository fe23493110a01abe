package posix

import (
	"testing"

	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m, children) }
