package dashboard

// query is an expression with what its lines are called.
type query struct{ expr, legend string }

func source() *datasource { return &datasource{Type: "prometheus", UID: "${datasource}"} }

// row is a heading.
func row(title string) panel {
	return panel{Type: "row", Title: title, GridPos: gridPos{H: 1, W: 24}}
}

// stat is one number as of now. steps colour it.
func stat(title, help, unit, expr string, steps ...step) panel {
	if len(steps) == 0 {
		steps = []step{{Color: "blue"}}
	}
	return panel{
		Type: "stat", Title: title, Description: help, GridPos: gridPos{H: 4, W: 4}, Datasource: source(),
		Targets: []target{{RefID: "A", Datasource: source(), Expr: expr, Instant: true}},
		FieldConfig: &fieldConfig{
			Defaults:  defaults{Unit: unit, NoValue: "none", Thresholds: &thresholds{Mode: "absolute", Steps: steps}},
			Overrides: []override{},
		},
		Options: map[string]any{"colorMode": "value", "reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}},
	}
}

func from(color string, value float64) step { return step{Color: color, Value: &value} }

// graph is lines over time.
func graph(title, help, unit string, width int, queries ...query) panel {
	zero := 0.0
	p := panel{
		Type: "timeseries", Title: title, Description: help, GridPos: gridPos{H: 8, W: width}, Datasource: source(),
		FieldConfig: &fieldConfig{
			Defaults:  defaults{Unit: unit, Min: &zero, Custom: map[string]any{"fillOpacity": 10, "showPoints": "never"}},
			Overrides: []override{},
		},
		Options: map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		},
	}
	for i, q := range queries {
		p.Targets = append(p.Targets, target{
			RefID: string(rune('A' + i)), Datasource: source(), Expr: q.expr, LegendFormat: q.legend, Range: true,
		})
	}
	return p
}

// bars is a graph of what happened in each interval, stacked.
func bars(title, help, unit string, width int, queries ...query) panel {
	p := graph(title, help, unit, width, queries...)
	p.FieldConfig.Defaults.Custom = map[string]any{
		"drawStyle": "bars", "fillOpacity": 80, "stacking": map[string]any{"mode": "normal", "group": "A"},
	}
	return p
}

// column is one query of a table, with its heading and unit.
type column struct{ title, unit, expr string }

// list is a table as of now, one line for each set of the labels, least value
// of the first column first unless most.
func list(title, help string, width int, most bool, labels []string, columns ...column) panel {
	p := panel{
		Type: "table", Title: title, Description: help, GridPos: gridPos{H: 8, W: width}, Datasource: source(),
		FieldConfig: &fieldConfig{Defaults: defaults{NoValue: "none"}},
		Options: map[string]any{
			"showHeader": true,
			"sortBy":     []map[string]any{{"displayName": columns[0].title, "desc": most}},
		},
	}
	names := map[string]string{}
	order := map[string]int{}
	for i, l := range labels {
		order[l] = i
	}
	for i, c := range columns {
		ref := string(rune('A' + i))
		value := "Value #" + ref
		if len(columns) == 1 {
			value = "Value"
		}
		names[value] = c.title
		order[value] = len(labels) + i
		p.Targets = append(p.Targets, target{RefID: ref, Datasource: source(), Expr: c.expr, Format: "table", Instant: true})
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, override{
			Matcher:    matcher{ID: "byName", Options: c.title},
			Properties: []property{{ID: "unit", Value: c.unit}},
		})
	}
	p.Transformations = []transformation{
		{ID: "merge", Options: map[string]any{}},
		{ID: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true}, "indexByName": order, "renameByName": names,
		}},
	}
	return p
}

// arrange numbers the panels and sets them in lines, left to right.
func arrange(panels []panel) []panel {
	x, y, h := 0, 0, 0
	for i := range panels {
		at := &panels[i].GridPos
		if x+at.W > 24 {
			x, y, h = 0, y+h, 0
		}
		panels[i].ID, at.X, at.Y = i+1, x, y
		x, h = x+at.W, max(h, at.H)
	}
	return panels
}
