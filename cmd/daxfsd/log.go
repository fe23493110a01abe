package main

import (
	"fmt"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger to the file at path, or to standard error if path is "-". With an
// empty path it logs to standard error in the foreground, and nowhere in the background. The log is
// text for people on a terminal, and JSON otherwise. The report of a crash goes to the same place.
// A background daemon without a log gets a file for that report, which end removes if there was no
// crash.
func newLogger(path string, background bool) (log *zap.Logger, end func(), err error) {
	out, level, end := os.Stderr, zapcore.InfoLevel, func() {}
	switch {
	case path != "" && path != "-":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("log file %s cannot be opened: %w", path, err)
		}
		out = f
	case path == "" && background:
		if f, clean := newCrashFile(crashDir()); f != nil {
			out, level, end = f, zapcore.FatalLevel, clean
		}
	}
	if out != os.Stderr {
		_ = crashTo(out)
	}
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.ISO8601TimeEncoder
	enc := zapcore.NewJSONEncoder(c)
	if isTerminal(out) {
		c = zap.NewDevelopmentEncoderConfig()
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
		c.EncodeLevel = zapcore.CapitalColorLevelEncoder
		enc = visibleEncoder{zapcore.NewConsoleEncoder(c)}
	}
	var w zapcore.WriteSyncer = out
	if st, err := out.Stat(); err == nil && !st.Mode().IsRegular() {
		w = newLineQueue(out)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(w), level)), end, nil
}
