package posix

import (
	"testing"

	"github.com/daxfs/daxfs/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m, children) }
