package main

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"k8s.io/component-base/metrics"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/cloud"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
)

//go:embed page.md.tmpl
var page string

// render returns the page. root is the root of the repository.
func render(root string) (string, error) {
	table := func(head, dir, prefix string) func() (string, error) {
		return func() (string, error) {
			all, err := constants(filepath.Join(root, dir), prefix)
			if err != nil {
				return "", err
			}
			rows := [][]string{{head, "Meaning"}}
			for _, c := range all {
				rows = append(rows, []string{"`" + c.value + "`", c.meaning})
			}
			return tableOf(rows), nil
		}
	}
	t, err := template.New("page.md.tmpl").Funcs(template.FuncMap{
		"annotations": table("Annotation", "pkg/names", "Annotation"),
		"events":      table("Reason", "pkg/lb", "Reason"),
		"tags":        table("Tag", "pkg/nsx", "Tag"),
		"actions":     table("Action", "pkg/lb", "Action"),
		"metrics":     metricsTable,
	}).Parse(page)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, nil); err != nil {
		return "", err
	}
	return b.String(), nil
}

// metricsTable has a row for each metric of ours.
func metricsTable() (string, error) {
	var rows [][]string
	var errs []error
	transport.NewMetrics().MustRegister(func(all ...metrics.Registerable) {
		for _, m := range all {
			kind, help := "", ""
			switch m := m.(type) {
			case *metrics.Counter:
				kind, help = "counter", m.CounterOpts.Help
			case *metrics.CounterVec:
				kind, help = "counter", m.CounterOpts.Help
			case *metrics.Gauge:
				kind, help = "gauge", m.GaugeOpts.Help
			case *metrics.HistogramVec:
				kind, help = "histogram", m.HistogramOpts.Help
			default:
				errs = append(errs, fmt.Errorf("metric %s is a %T, which this program does not know", m.FQName(), m))
			}
			rows = append(rows, []string{"`" + m.FQName() + "`", kind, help})
		}
	})
	for d := range descriptions(new(cloud.Cloud).Collector()) {
		row, err := collectedRow(d.String())
		rows, errs = append(rows, row), append(errs, err)
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return tableOf(slices.Insert(rows, 0, []string{"Metric", "Type", "Meaning"})), errors.Join(errs...)
}

// descriptions lists what a collector says that it collects.
func descriptions(c metrics.StableCollector) <-chan *metrics.Desc {
	all := make(chan *metrics.Desc)
	go func() {
		defer close(all)
		c.DescribeWithStability(all)
	}()
	return all
}

// description is how a metrics.Desc prints, which shows its parts in no other way.
var description = regexp.MustCompile(`^Desc\{fqName: ("[^"]+"), help: ("(?:[^"\\]|\\.)+"), constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// collectedRow is the row of a metric that a collector collects: a counter if its name says so, else a gauge.
func collectedRow(printed string) ([]string, error) {
	parts := description.FindStringSubmatch(printed)
	if parts == nil {
		return nil, fmt.Errorf("cannot read the description of a metric: %s", printed)
	}
	name, err1 := strconv.Unquote(parts[1])
	help, err2 := strconv.Unquote(parts[2])
	if labels := parts[3]; labels != "" {
		help += " Label: `" + strings.ReplaceAll(labels, ",", "`, `") + "`."
	}
	kind := "gauge"
	if strings.HasSuffix(name, "_total") {
		kind = "counter"
	}
	return []string{"`" + name + "`", kind, help}, errors.Join(err1, err2)
}

// tableOf writes a Markdown table, whose first row is its head.
func tableOf(rows [][]string) string {
	var lines []string
	for i, row := range rows {
		cells := make([]string, len(row))
		for j, cell := range row {
			cells[j] = strings.ReplaceAll(cell, "|", `\|`)
		}
		lines = append(lines, "| "+strings.Join(cells, " | ")+" |")
		if i == 0 {
			lines = append(lines, "|"+strings.Repeat("---|", len(row)))
		}
	}
	return strings.Join(lines, "\n")
}
