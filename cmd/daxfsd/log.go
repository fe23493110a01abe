package main

import (
	"fmt"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger logs to the file at path, to standard error (-), or, if nothing was said, to standard
// error in the foreground and nowhere in the background: for people on a terminal, as JSON
// otherwise. A crash is reported to the same place; where there is none, to a file of its own,
// which end removes if there was none.
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
