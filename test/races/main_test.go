package races

import (
	"testing"

	"github.com/daxfs/daxfs/test/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m, nil) }
