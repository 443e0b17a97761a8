//! Prometheus's text format, version 0.0.4.
//!
//! ```text
//! # HELP minions_vms VMs by state.
//! # TYPE minions_vms gauge
//! minions_vms{state="ready"} 12
//! ```
//!
//! Own code because `prometheus-client` 0.24 writes only OpenMetrics, which would change what a scraper reads: it adds
//! `_total` to the sample of a counter but not to its `# TYPE`, a full stop to each help, `.0` to bounds of buckets
//! (`le="1.0"` is another time series than `le="1"`), and `# EOF`. Most figures here are also looked up for each page,
//! for which such a library needs a collector for each.

use super::histogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Media type of the text format.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written.
#[derive(Debug, Default)]
pub(crate) struct MetricsPage {
    text: String,
}

/// Type of a metric family.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MetricType {
    /// A value that only increases.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// The buckets, sum and count of a [`Histogram`].
    Histogram,
}

impl MetricsPage {
    /// Begins a metric family. All its figures must be written before the next family.
    pub(crate) fn family(
        &mut self,
        name: &'static str,
        kind: MetricType,
        help: &str,
    ) -> MetricFamily<'_> {
        let type_name = match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {type_name}");
        MetricFamily { page: self, name }
    }

    /// Begins a part of a family that is longer than a page. Only its first part has the head.
    pub(crate) fn family_part(
        &mut self,
        name: &'static str,
        kind: MetricType,
        help: &str,
        is_first: bool,
    ) -> MetricFamily<'_> {
        if is_first { self.family(name, kind, help) } else { MetricFamily { page: self, name } }
    }

    /// Writes a family with one figure.
    pub(crate) fn one(
        &mut self,
        name: &'static str,
        kind: MetricType,
        help: &str,
        value: impl Display,
    ) {
        self.family(name, kind, help).figure(&[], value);
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// A metric family that is being written.
#[derive(Debug)]
pub(crate) struct MetricFamily<'a> {
    page: &'a mut MetricsPage,
    name: &'static str,
}

impl MetricFamily<'_> {
    pub(crate) fn figure(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// Writes a figure whose first labels are written already.
    pub(crate) fn labelled(
        &mut self,
        EscapedLabels(first): &EscapedLabels,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        let text = &mut self.page.text;
        let _ = write!(text, "{}{{{first}", self.name);
        for (name, value) in labels {
            let _ = write!(text, ",{name}=\"{}\"", EscapedLabel(value));
        }
        let _ = writeln!(text, "}} {value}");
    }

    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let (figures, sum) = histogram.figures();
        let count = figures.last().map_or(0, |(_, count)| *count);
        for (bound, value) in figures {
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.line("_bucket", &labels, value);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(text, "{before}{name}=\"{}\"", EscapedLabel(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(text, "{close} {value}");
    }
}

/// Labels that many figures have in common, at least one: `vm="web-1",label_app="web"`.
#[derive(Debug)]
pub(crate) struct EscapedLabels(String);

impl EscapedLabels {
    pub(crate) fn of(labels: &BTreeMap<String, String>) -> Self {
        let labels =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", EscapedLabel(value)));
        Self(labels.collect::<Vec<_>>().join(","))
    }
}

/// Value of a label, with backslash, quote and newline escaped.
struct EscapedLabel<'a>(&'a str);

impl Display for EscapedLabel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_page_has_the_format_that_prometheus_reads() {
        let mut page = MetricsPage::default();
        let mut family = page.family("a_total", MetricType::Counter, "As.");
        family.figure(&[("x", "1"), ("y", "q\"b\\n\n")], 3);
        page.one("b", MetricType::Gauge, "B.", 0.5);
        let expected = "# HELP a_total As.\n# TYPE a_total counter\n\
                        a_total{x=\"1\",y=\"q\\\"b\\\\n\\n\"} 3\n\
                        # HELP b B.\n# TYPE b gauge\nb 0.5\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn figures_may_share_their_first_labels() {
        let labels = [("label_app", "we\"b"), ("vm", "web-1")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let labels = EscapedLabels::of(&labels);
        let mut page = MetricsPage::default();
        let mut family = page.family("a", MetricType::Gauge, "As.");
        family.labelled(&labels, &[], 1);
        family.labelled(&labels, &[("x", "\n")], 2.5);
        let text = page.finish();
        assert!(text.ends_with(
            "a{label_app=\"we\\\"b\",vm=\"web-1\"} 1\na{label_app=\"we\\\"b\",vm=\"web-1\",x=\"\\n\"} 2.5\n"
        ), "{text}");
    }

    #[test]
    fn a_histogram_has_its_buckets_sum_and_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(3));
        let mut page = MetricsPage::default();
        page.family("h", MetricType::Histogram, "H.").histogram(&[("r", "x")], &histogram);
        let text = page.finish();
        assert!(text.contains("h_bucket{r=\"x\",le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("h_bucket{r=\"x\",le=\"0.005\"} 1\n"), "{text}");
        assert!(text.ends_with("h_sum{r=\"x\"} 0.003\nh_count{r=\"x\"} 1\n"), "{text}");
    }
}
