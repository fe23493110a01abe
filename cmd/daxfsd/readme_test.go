package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeOptions checks that the table of mount options in README.md has exactly those that -o
// accepts.
func TestReadmeOptions(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(readme), "\n## Mount options\n")
	if !ok {
		t.Fatal("README.md has no section \"Mount options\"")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	var told []string
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 3 || strings.Contains(cells[1], "`-o`") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			told = append(told, m[1])
		}
	}
	slices.Sort(told)
	if known := slices.Sorted(slices.Values(knownOptions)); !slices.Equal(told, known) {
		t.Errorf("README.md has the mount options\n%v\n-o knows\n%v", told, known)
	}
}
