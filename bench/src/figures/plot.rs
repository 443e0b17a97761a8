//! A plot of two curves over the number of VMs, as an SVG: latency and memory, each with its own axis.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 60.0;

/// Label, colour and values of a curve.
#[derive(Debug)]
pub(crate) struct PlotCurve<'a> {
    pub(crate) label: &'a str,
    pub(crate) colour: &'a str,
    /// Values, one for each number of VMs.
    pub(crate) values: Vec<f64>,
}

/// Draws both curves over `counts` (on a logarithmic scale): `left` uses the left axis, `right` the right
/// one. Both axes begin at zero.
pub(crate) fn svg(
    title: &str,
    counts: &[u32],
    left: &PlotCurve<'_>,
    right: &PlotCurve<'_>,
) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 24.0, "middle", "black", title);
    let places = places(counts);
    for (count, x) in counts.iter().zip(&places) {
        let base = HEIGHT - MARGIN;
        // Writing to a string does not fail.
        let _ = writeln!(svg, "<path d=\"M{x:.1} {base}V{MARGIN}\" stroke=\"#ddd\"/>");
        text(&mut svg, *x, base + 18.0, "middle", "black", &count.to_string());
    }
    text(&mut svg, WIDTH / 2.0, HEIGHT - 18.0, "middle", "black", "VMs");
    curve(&mut svg, &places, left, MARGIN, "start");
    curve(&mut svg, &places, right, WIDTH - MARGIN, "end");
    svg.push_str("</svg>\n");
    svg
}

/// Draws the curve with a dot and a figure at each value, and its label above the axis at `x`.
fn curve(svg: &mut String, places: &[f64], curve: &PlotCurve<'_>, x: f64, anchor: &str) {
    let PlotCurve { label, colour, values } = curve;
    text(svg, x, MARGIN - 12.0, anchor, colour, label);
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let height = |value: f64| HEIGHT - MARGIN - value / most * (HEIGHT - 2.0 * MARGIN);
    let points: Vec<(f64, f64)> =
        places.iter().zip(values).map(|(x, value)| (*x, height(*value))).collect();
    let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for ((x, y), value) in points.into_iter().zip(values) {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        text(svg, x, y - 8.0, "middle", colour, &format!("{value:.1}"));
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, content: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{content}</text>"
    );
}

/// Returns the horizontal positions of `counts`, on a logarithmic scale.
fn places(counts: &[u32]) -> Vec<f64> {
    let log = |count: &u32| f64::from((*count).max(1)).ln();
    let first = counts.first().map_or(0.0, log);
    let range = (counts.last().map_or(1.0, log) - first).max(f64::MIN_POSITIVE);
    let inner = WIDTH - 2.0 * MARGIN - 40.0;
    counts.iter().map(|count| MARGIN + 20.0 + (log(count) - first) / range * inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_dot_for_each_value_within_its_frame() {
        let counts = [1, 100, 1000, 5000];
        let left = PlotCurve { label: "µs", colour: "navy", values: vec![80.0, 81.0, 85.0, 90.0] };
        let right =
            PlotCurve { label: "MiB", colour: "maroon", values: vec![7.0, 8.0, 20.0, 70.0] };
        let svg = svg("health", &counts, &left, &right);
        assert_eq!(svg.matches("<circle").count(), 8);
        assert!(svg.contains(">5000</text>") && svg.contains(">70.0</text>"));
        for place in places(&counts) {
            assert!((MARGIN..=WIDTH - MARGIN).contains(&place), "{place}");
        }
    }
}
