package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// figure is a plot of growth with the number of Services: a line for each number of nodes.
type figure struct {
	file, title, unit string
	cells             []cell
	value             func(cell) float64
	// bound is a line to compare with; nil for none.
	bound      func(cell) float64
	boundTitle string
}

func plots(r results) []figure {
	return []figure{
		{"bulk-time.svg", "All Services created at once: time to the last EXTERNAL-IP", "seconds", r.Cells,
			func(c cell) float64 { return c.Bulk.Seconds }, r.least, "rate limit alone"},
		{"restart-time.svg", "Restart: time until every Service is verified", "seconds", r.Cells,
			func(c cell) float64 { return c.Restart.Seconds }, nil, ""},
		{"bulk-cpu.svg", "All Services created at once: CPU time", "seconds", r.Cells,
			func(c cell) float64 { return c.Bulk.CPU }, nil, ""},
		{"memory.svg", "Restart: peak memory of the controller", "MiB", r.Cells,
			func(c cell) float64 { return c.Restart.PeakMiB }, nil, ""},
		{"node-time.svg", "Node Ready to member ENABLED, cluster at rest", "seconds", r.Cells,
			func(c cell) float64 { return c.NodeIdle }, nil, ""},
	}
}

func (f figure) save(folder string) error {
	p := plot.New()
	p.Title.Text = f.title
	p.X.Label.Text, p.Y.Label.Text = "Services", f.unit
	p.X.Min, p.Y.Min = 0, 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	byNodes := map[int]plotter.XYs{}
	var bound plotter.XYs
	top := 0.0
	for _, c := range f.cells {
		x := float64(c.Services)
		byNodes[c.Nodes] = append(byNodes[c.Nodes], plotter.XY{X: x, Y: f.value(c)})
		top = max(top, f.value(c))
		if f.bound != nil && (len(bound) == 0 || bound[len(bound)-1].X != x) {
			bound = append(bound, plotter.XY{X: x, Y: f.bound(c)})
		}
	}
	lines := []any{}
	for _, nodes := range slices.Sorted(maps.Keys(byNodes)) {
		lines = append(lines, fmt.Sprintf("%d nodes", nodes), byNodes[nodes])
	}
	if len(bound) > 0 {
		lines = append(lines, f.boundTitle, bound)
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	p.Y.Min, p.Y.Max = 0, top*1.25
	return p.Save(16*vg.Centimeter, 9*vg.Centimeter, filepath.Join(folder, f.file))
}
