package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"html/template"
	"os"
)

//go:embed report.html
var page string

// html writes the report as one page that loads nothing.
func (r *Report) html(file string) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"columns": func() []string { return columns },
		"plot": func(x *row) (template.URL, error) {
			b, ok, err := x.draw()
			if !ok || err != nil {
				return "", err
			}
			return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b)), nil
		},
	}).Parse(page)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{"R": r, "Machine": r.Machine.String(), "How": r.how(), "Explained": explained}); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
