// Package plot draws bar charts as SVG that reads on a light and on a dark page.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Bar is one bar of a chart: a median, and the quartiles around it. Low and High
// may be NaN when there are none.
type Bar struct {
	Label             string
	Low, Median, High float64
	// Strong tells the bars that the chart is about from those beside them.
	Strong bool
}

// Chart is a chart of bars that lie, one below the other.
type Chart struct {
	Title string
	// Axis says what the numbers are.
	Axis string
	// Reference is where a line is drawn through all bars; 0: nowhere.
	Reference float64
	Bars      []Bar
}

// The measures of a chart, in pixels.
const (
	width     = 860
	labels    = 300 // the column of labels
	values    = 110 // the column of numbers at the right
	rowHeight = 24
	barHeight = 14
	head      = 44
	foot      = 46
)

const style = `<style>
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:15px}.faint{fill:#59636e}
.bar{fill:#b1bac4}.strong{fill:#2f81f7}.whisker{stroke:#1f2328;stroke-width:1.5}
.grid{stroke:#d1d9e0}.reference{stroke:#cf222e;stroke-dasharray:4 3}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.faint{fill:#9198a1}.bar{fill:#59636e}.whisker{stroke:#e6edf3}.grid{stroke:#3d444d}.reference{stroke:#ff7b72}}
</style>
`

// SVG returns the chart as a document.
func (c Chart) SVG() string {
	largest := c.Reference
	for _, b := range c.Bars {
		for _, v := range []float64{b.Median, b.High} {
			if !math.IsNaN(v) {
				largest = max(largest, v)
			}
		}
	}
	step := niceStep(largest)
	end := max(step, math.Ceil(largest/step-1e-9)*step)
	at := func(v float64) float64 { return labels + v/end*(width-labels-values) }

	bottom := head + len(c.Bars)*rowHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" role="img">`+"\n", width, bottom+foot, width)
	fmt.Fprintf(&b, "<title>%s</title>\n%s", html.EscapeString(c.Title), style)
	fmt.Fprintf(&b, `<text class="title" x="8" y="22">%s</text>`+"\n", html.EscapeString(c.Title))
	for i := 0; float64(i)*step <= end+step/2; i++ {
		v := float64(i) * step
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, at(v), at(v), head, bottom)
		fmt.Fprintf(&b, `<text class="faint" text-anchor="middle" x="%.1f" y="%d">%s</text>`+"\n", at(v), bottom+16, number(math.Round(v*1e9)/1e9))
	}
	fmt.Fprintf(&b, `<text class="faint" x="%d" y="%d">%s</text>`+"\n", labels, bottom+36, html.EscapeString(c.Axis))
	for i, bar := range c.Bars {
		bar.draw(&b, head+i*rowHeight, at)
	}
	if c.Reference > 0 {
		fmt.Fprintf(&b, `<line class="reference" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n", at(c.Reference), at(c.Reference), head-6, bottom)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (bar Bar) draw(b *strings.Builder, top int, at func(float64) float64) {
	middle := top + rowHeight/2
	fmt.Fprintf(b, `<text text-anchor="end" x="%d" y="%d">%s</text>`, labels-8, middle+4, html.EscapeString(bar.Label))
	right := at(0)
	if !math.IsNaN(bar.Median) {
		class := "bar"
		if bar.Strong {
			class = "strong"
		}
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, labels, middle-barHeight/2, at(bar.Median)-labels, barHeight)
		right = at(bar.Median)
	}
	if !math.IsNaN(bar.Low) && !math.IsNaN(bar.High) {
		fmt.Fprintf(b, `<path class="whisker" d="M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8"/>`, at(bar.Low), middle, at(bar.High), at(bar.Low), middle-4, at(bar.High), middle-4)
		right = max(right, at(bar.High))
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", right+8, middle+4, value(bar.Median))
}

// niceStep returns a step of 1, 2 or 5 times a power of ten that cuts a length
// into four to ten parts.
func niceStep(length float64) float64 {
	if !(length > 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(length/4)))
	for _, factor := range []float64{5, 2} {
		if length/(factor*power) >= 4 {
			return factor * power
		}
	}
	return power
}

// number writes a number of an axis.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// value writes the median of a bar, with about three digits that count.
func value(v float64) string {
	switch {
	case math.IsNaN(v):
		return "not measured"
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
