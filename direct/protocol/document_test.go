package protocol_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// TestDocument checks that docs/direct.md has the code's constants.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/direct.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for _, want := range []string{
		fmt.Sprintf("Version: %d.", protocol.Version),
		fmt.Sprintf("| GRANT | `_IOWR('D', 16, %d)` = %#x | %d |", protocol.GrantSize, uint32(protocol.IocGrant), protocol.GrantSize),
		fmt.Sprintf("| CONFIRM | `_IOWR('D', 17, %d)` = %#x | %d |", protocol.CommandSize, uint32(protocol.IocConfirm), protocol.CommandSize),
		fmt.Sprintf("| COMMIT | `_IOWR('D', 18, %d)` = %#x | %d |", protocol.CommandSize, uint32(protocol.IocCommit), protocol.CommandSize),
		fmt.Sprintf("| RELEASE | `_IOWR('D', 19, %d)` = %#x | %d |", protocol.CommandSize, uint32(protocol.IocRelease), protocol.CommandSize),
		fmt.Sprintf("number of extents, at most %d", protocol.MaxExtents),
		fmt.Sprintf("| 112 | %d | path", protocol.MaxPath),
		fmt.Sprintf("flags: %d to write as well as to read; %d (only", protocol.Write, protocol.Allocate),
		fmt.Sprintf("\n%d bytes, which a client maps to read.", protocol.SlotSize),
		fmt.Sprintf("| %d | 8 | generation: odd", protocol.SlotGeneration),
		fmt.Sprintf("| %d | 8 | size of the file |", protocol.SlotFileSize),
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("docs/direct.md lacks %q", want)
		}
	}
	if protocol.MaxID != 1<<61-2 || protocol.Identity(3, true) != 1<<62+2*3+1 {
		t.Error("docs/direct.md says other identities")
	}
}
