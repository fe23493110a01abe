package main

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// topModel is the live view. States: asked (a question is on its way) -> shown (until the interval
// is over) -> asked. A key or an error ends it.
type topModel struct {
	interval      time.Duration
	next          func() (*interval, error)
	shown         *interval // nil: the first interval is not over
	by            topOrder
	width, height int // of the terminal, in characters; 0: not known yet
	err           error
}

// asking is the message that an interval is over; answered carries what happened in it.
type (
	asking   struct{}
	answered struct {
		i   *interval
		err error
	}
)

// topLive shows what w sees until the user quits.
func topLive(w *watcher, each time.Duration) error {
	end, err := tea.NewProgram(&topModel{interval: each, next: w.next}).Run()
	if err != nil {
		return err
	}
	return end.(*topModel).err
}

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return asking{} })
}

// Init begins the first interval.
func (m *topModel) Init() tea.Cmd { return m.wait() }

// Update handles a key, a change of the terminal's size, the end of an interval, or the daemon's
// answer.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "s":
			m.by = (m.by + 1) % topOrders
		}
	case asking:
		return m, func() tea.Msg {
			i, err := m.next()
			return answered{i, err}
		}
	case answered:
		if msg.err != nil {
			m.err = msg.err
			return m, tea.Quit
		}
		m.shown = msg.i
		return m, m.wait()
	}
	return m, nil
}

var (
	topTitle = lipgloss.NewStyle().Bold(true)
	topHead  = lipgloss.NewStyle().Reverse(true)
	topFaint = lipgloss.NewStyle().Faint(true)
)

// View renders the screen.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

func (m *topModel) screen() string {
	if m.shown == nil {
		return fmt.Sprintf("watching for %v", m.interval)
	}
	head := m.shown.head()
	head[0] = topTitle.Render(head[0])
	lines := append(head, topHead.Render(topHeader))
	room := -1
	if m.height > 0 {
		room = max(m.height-len(lines)-1, 1) // the line of keys is below
	}
	grants := m.grants(room / 2)
	if room > 0 {
		room -= len(grants)
	}
	lines = append(lines, strings.Split(strings.TrimSuffix(m.shown.table(m.by, room), "\n"), "\n")...)
	lines = append(lines, grants...)
	lines = append(lines, topFaint.Render(fmt.Sprintf("each %v; s sorts (by %v), q ends", m.interval, m.by)))
	if m.width > 0 {
		for i, l := range lines {
			lines[i] = ansi.Truncate(l, m.width, "…")
		}
	}
	return strings.Join(lines, "\n")
}

// grants returns at most most lines about grants; 0: as many as there are.
func (m *topModel) grants(most int) []string {
	if len(m.shown.Grants) == 0 {
		return nil
	}
	var b strings.Builder
	grantsTable(&b, m.shown.Grants)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	lines[0] = topHead.Render(lines[0])
	lines = append([]string{""}, lines...)
	switch {
	case m.height == 0 || len(lines) <= most:
		return lines
	case most < 3: // not even one grant
		return nil
	}
	return lines[:most]
}
