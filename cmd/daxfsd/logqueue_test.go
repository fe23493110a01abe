package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLineQueue checks that a reader that stops costs one wait. When it reads again it gets the
// lines in order, and the number of lost lines.
func TestLineQueue(t *testing.T) {
	reader, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer out.Close()
	queue := newLineQueue(out)
	const all = 50_000
	start := time.Now()
	for i := range all {
		if _, err := fmt.Fprintf(queue, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	queue.Sync()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("without a reader it took %v", took)
	}
	got := make(chan string)
	go func() {
		defer close(got)
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			got <- lines.Text()
		}
	}()
	next, lost := 0, 0
	read := func(text string) (last bool) {
		if strings.Contains(text, `"lines":`) {
			fmt.Sscanf(text[strings.Index(text, `"lines":`):], `"lines":%d`, &lost)
			return false
		}
		var n int
		if _, err := fmt.Sscanf(text, "line %d", &n); err != nil || n < next {
			t.Fatalf("%q after line %d", text, next)
		}
		next = n + 1
		return n == all
	}
	for { // until there is room for another line
		select {
		case text := <-got:
			read(text)
			continue
		case <-time.After(200 * time.Millisecond):
		}
		break
	}
	before := next
	fmt.Fprintf(queue, "line %d\n", all)
	for timeout := time.After(20 * time.Second); ; {
		select {
		case text := <-got:
			if read(text) {
				if before+lost != all || lost == 0 {
					t.Errorf("%d lines came, %d were said to be lost, of %d", before, lost, all)
				}
				return
			}
		case <-timeout:
			t.Fatal("the last line did not come")
		}
	}
}
