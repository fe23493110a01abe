package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestSQLite writes a database in WAL mode, whose index of the log is in a shared mapping.
func TestSQLite(t *testing.T) {
	harness.Need(t, "sqlite3")
	mount := harness.New(t, 256<<20, 4*time.Minute)
	db := mount.Path("db")
	sql := func(script string) string {
		t.Helper()
		return strings.TrimSpace(harness.Feed(t, 2*time.Minute, mount.Mountpoint, []string{"HOME=" + mount.Dir}, ".timeout 30000\n"+script, "sqlite3", "-batch", "-bail", db))
	}
	if mode := sql("PRAGMA journal_mode=WAL;"); mode != "wal" {
		t.Fatalf("journal_mode=WAL gives %q", mode)
	}
	sql("CREATE TABLE t(id INTEGER PRIMARY KEY, who INT, n INT, text TEXT); CREATE INDEX byn ON t(n, text);")

	// Two writers and a reader, three processes.
	const batches, batch, single = 20, 250, 150
	writer := func(who int) string {
		var statements strings.Builder
		insert := func(n int) {
			fmt.Fprintf(&statements, "INSERT INTO t(who,n,text) VALUES(%d,%d,'%s');\n", who, n, strings.Repeat(fmt.Sprint(n%10), 1+n*7%300))
		}
		for i := range batches {
			statements.WriteString("BEGIN IMMEDIATE;\n")
			for row := range batch {
				insert(i*batch + row)
			}
			statements.WriteString("COMMIT;\n")
		}
		for i := range single {
			insert(batches*batch + i)
		}
		return statements.String()
	}
	errs := make(chan error, 2)
	for who := range 2 {
		go func() {
			_, err := sqlScript(mount, db, writer(who))
			errs <- err
		}()
	}
	for pending := 2; pending > 0; {
		select {
		case err := <-errs:
			if err != nil {
				t.Fatal(err)
			}
			pending--
		default:
			if got := sql("PRAGMA integrity_check;"); got != "ok" {
				t.Fatalf("integrity_check while writers write: %s", got)
			}
		}
	}
	// The last connection leaves the log in place, to be read after the remount.
	sql(".dbconfig no_ckpt_on_close on\nPRAGMA wal_autocheckpoint=0;\nUPDATE t SET text=text||'x' WHERE n%3=0; DELETE FROM t WHERE n%7=0;")
	if info, err := os.Stat(db + "-wal"); err != nil || info.Size() == 0 {
		t.Errorf("there is no log to read after the remount (%v)", err)
	}
	const sum = "SELECT count(*), sum(length(text)), sum(n*(who+1)) FROM t;"
	check := func() string {
		t.Helper()
		if got := sql(".dbconfig no_ckpt_on_close on\nPRAGMA integrity_check;"); !strings.HasSuffix(got, "ok") {
			t.Fatalf("integrity_check: %s", got)
		}
		out := sql(".dbconfig no_ckpt_on_close on\n" + sum)
		return out[strings.LastIndexByte(out, '\n')+1:] // .dbconfig prints a line, too
	}
	before := check()
	mount.Again()
	if after := check(); after != before {
		t.Errorf("after the remount the table has %q, before %q", after, before)
	}
	sql("PRAGMA wal_checkpoint(TRUNCATE); VACUUM;")
	if after := check(); after != before {
		t.Errorf("after VACUUM the table has %q, before %q", after, before)
	}
	t.Logf("rows, bytes, checksum: %s", before)
}

func sqlScript(m *harness.Mount, db, script string) (string, error) {
	out, err := harness.Filter(2*time.Minute, m.Mountpoint, []string{"HOME=" + m.Dir}, ".timeout 60000\n"+script, "sqlite3", "-batch", "-bail", db)
	if err != nil {
		err = fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return out, err
}
