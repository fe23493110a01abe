package fsck_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestFormatDocument checks that docs/format.md has the code's constants.
func TestFormatDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for name, v := range map[string]int{
		"LineSize": layout.LineSize, "PayloadSize": layout.PayloadSize, "BlockSize": layout.BlockSize,
		"LinesPerBlock": layout.LinesPerBlock, "SuperSize": layout.SuperSize, "LabelSize": layout.LabelSize,
		"InodeSize": layout.InodeSize, "InodesPerBlock": layout.InodesPerBlock, "InlineSize": layout.InlineSize,
		"ExtentsPerLine": layout.ExtentsPerLine, "ExtentsPerBlock": layout.ExtentsPerBlock,
		"HeadName": layout.HeadName, "ContName": layout.ContName, "NameMax": layout.NameMax,
		"MaxDentryLines": layout.MaxDentryLines, "ChunksPerLine": layout.ChunksPerLine, "TypesPerLine": layout.TypesPerLine,
		"MaxRecordLines(8192)": layout.MaxRecordLines(8192),
		"LoggedMax":            layout.LoggedMax, "LoggedData": layout.LoggedData,
		"RecordSize(1)": layout.RecordSize(1), "RecordSize(4)": layout.RecordSize(4), "RecordSize(112)": layout.RecordSize(112),
	} {
		if row := fmt.Sprintf("| %s | %d |", name, v); !strings.Contains(doc, row) {
			t.Errorf("docs/format.md lacks the row %q", row)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\| [A-Z][A-Za-z]+(\(\d+\))? \| \d+ \|$`).FindAllString(doc, -1)); n != 23 {
		t.Errorf("docs/format.md has %d rows of constants, 23 are checked", n)
	}
	for _, w := range []string{fmt.Sprintf("version: %d", layout.Version), fmt.Sprintf("magic `% x`", layout.Magic[:]),
		fmt.Sprintf("%#x", layout.ExtentBlockMagic), fmt.Sprintf("%#x", layout.ChunkMagic), fmt.Sprintf("%#x", layout.RecordMagic), fmt.Sprintf("%#x", layout.FreeMapMagic)} {
		if !strings.Contains(doc, w) {
			t.Errorf("docs/format.md lacks %q", w)
		}
	}
}

// TestFormatExample checks that the worked example of docs/format.md is the result of mkfs.
func TestFormatExample(t *testing.T) {
	if testing.Short() {
		t.Skip("a region of 1 GiB")
	}
	r, err := pmem.NewMemory(1 << 30)
	if err != nil {
		t.Skip(err)
	}
	defer r.Close()
	s, err := fs.Mkfs(r, fs.MkfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, off := range map[string]int64{
		"bad-range list": s.BadOff, "lanes: 64 × 2 × 8192": s.LaneOff, "chunk map: 512 chunks, 416 a line, 2 lines, padded": s.ChunkMapOff,
		"slots: 4096": s.SlotOff, "first chunk header": s.StaticEnd, "first inode block": s.InodeBase, "second superblock": s.BackupOff,
	} {
		if row := fmt.Sprintf("| %s | %d | ", name, off); !strings.Contains(string(b), row) {
			t.Errorf("docs/format.md lacks %q", row)
		}
	}
}
