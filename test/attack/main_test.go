package attack

import (
	"testing"

	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Children{"attacker": attacker, "victim": victim})
}
