package top

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// screen says what is shown.
type screen int

const (
	table  screen = iota // the containers
	detail               // one container with its files
	typing               // the table, while a filter is typed
)

// model is the state of the program. Update is its one way to change.
type model struct {
	report  Report
	err     error // why the last report could not be had; the one before stays
	history history
	order   Order
	filter  string
	chosen  string // key of the container under the cursor
	at      screen
	width   int
	height  int
	fetch   func() (Report, error)
}

// reported brings a new report, or why there is none.
type reported struct {
	report Report
	err    error
}

// refresh is the time between two reports.
const refresh = time.Second

func newModel(fetch func() (Report, error), by Order, filter string) model {
	return model{fetch: fetch, order: by, filter: filter, history: history{}, width: 100, height: 30}
}

// Init asks for the first report.
func (m model) Init() tea.Cmd { return m.ask }

func (m model) ask() tea.Msg {
	r, err := m.fetch()
	return reported{r, err}
}

// Update is one step: a key, a report, or another size of the terminal.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case reported:
		m.err = msg.err
		if msg.err == nil {
			m.report, m.history = msg.report, m.history.add(msg.report)
		}
		return m, tea.Tick(refresh, func(time.Time) tea.Msg { return m.ask() })
	case tea.KeyPressMsg:
		return m.press(msg)
	}
	return m, nil
}

func (m model) press(msg tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	key := msg.String()
	if key == "ctrl+c" {
		return m, tea.Quit
	}
	switch m.at {
	case typing:
		return m.typed(key, msg.Text), nil
	case detail:
		if key == "q" {
			return m, tea.Quit
		}
		if key == "esc" || key == "enter" || key == "left" || key == "backspace" {
			m.at = table
		}
		return m.moved(key), nil
	case table:
	}
	switch key {
	case "q", "esc":
		return m, tea.Quit
	case "s":
		m.order = after(Orders(), m.order)
	case "/":
		m.at = typing
	case "enter", "right":
		if len(m.rows()) > 0 {
			m.chosen, m.at = m.rows()[m.cursor()].key(), detail
		}
	}
	return m.moved(key), nil
}

// typed takes a key of the filter.
func (m model) typed(key, text string) model {
	switch key {
	case "enter":
		m.at = table
	case "esc":
		m.at, m.filter = table, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		m.filter += strings.TrimSpace(text)
	}
	return m
}

// moved puts the cursor on another container.
func (m model) moved(key string) model {
	rows := m.rows()
	if len(rows) == 0 {
		return m
	}
	to := m.cursor()
	switch key {
	case "up", "k":
		to--
	case "down", "j":
		to++
	case "pgup":
		to -= m.page()
	case "pgdown":
		to += m.page()
	case "home", "g":
		to = 0
	case "end", "G":
		to = len(rows) - 1
	default:
		return m
	}
	m.chosen = rows[min(max(to, 0), len(rows)-1)].key()
	return m
}

func (m model) rows() []Container { return Arrange(m.report.Containers, m.order, m.filter) }

// cursor is the row of the chosen container; the first when it is gone.
func (m model) cursor() int {
	return max(0, slices.IndexFunc(m.rows(), func(c Container) bool { return c.key() == m.chosen }))
}

// page is how many rows there is room for.
func (m model) page() int { return max(1, m.height-len(m.report.Filesystems)-3) }

func after[T comparable](all []T, one T) T {
	return all[(slices.Index(all, one)+1)%len(all)]
}
