//! The two text forms of metrics that Prometheus reads, and which of them an `Accept` header asks for.
//!
//! Both programs encode OpenMetrics; the text format 0.0.4 is made from it here, for whoever does not ask for
//! OpenMetrics: a browser, `curl`, `promtool check metrics`, agents of other vendors. Only texts go in and come out.

use std::collections::BTreeMap;

/// A form of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// One range of an `Accept` header that matches a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    /// How exactly the form is named: a media type with its version 3, without 2, `text/*` 1, `*/*` 0.
    precision: u8,
    /// From 0, not acceptable, to 1000.
    quality: u16,
}

impl Form {
    /// The form that these `Accept` headers ask for; [`Form::Text`] unless OpenMetrics is named and wanted as much.
    pub fn accepted<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges: Vec<&str> = headers.into_iter().flat_map(|header| split(header, ',')).collect();
        let quality = |form: Self| {
            // The most exact range counts, and of several versions the one that is wanted most.
            ranges.iter().filter_map(|range| form.matched_by(range)).max()
        };
        match (quality(Self::OpenMetrics), quality(Self::Text)) {
            (Some(open), text)
                if open.precision >= 2
                    && open.quality > 0
                    && open.quality >= text.map_or(0, |text| text.quality) =>
            {
                Self::OpenMetrics
            }
            _ => Self::Text,
        }
    }

    /// The `Content-Type` of this form.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// These OpenMetrics in this form.
    pub fn of(self, open_metrics: String) -> String {
        match self {
            Self::Text => text(&open_metrics),
            Self::OpenMetrics => open_metrics,
        }
    }

    fn matched_by(self, range: &str) -> Option<Wanted> {
        let mut parts = split(range, ';').map(str::trim);
        let kind = parts.next()?.to_ascii_lowercase();
        let (own, versions): (_, &[&str]) = match self {
            Self::Text => ("text/plain", &["0.0.4"]),
            // The versions differ in nothing that is shown here.
            Self::OpenMetrics => ("application/openmetrics-text", &["1.0.0", "0.0.1"]),
        };
        let (group, _) = own.split_once('/')?;
        let mut precision = match kind.as_str() {
            kind if kind == own => 2,
            kind if kind.strip_suffix("/*") == Some(group) => 1,
            "*/*" => 0,
            _ => return None,
        };
        let mut quality = 1_000;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value)?,
                "version" if precision >= 2 => {
                    if !versions.contains(&value) {
                        return None;
                    }
                    precision = 3;
                }
                _ => {}
            }
        }
        Some(Wanted { precision, quality })
    }
}

/// A weight of an `Accept` header, which has three decimals at most.
fn thousandths(text: &str) -> Option<u16> {
    let weight: f64 = text.parse().ok()?;
    let is_weight = (0.0..=1.0).contains(&weight);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1000, as was just seen"
    )]
    is_weight.then_some((weight * 1_000.0).round() as u16)
}

/// Splits a header at a separator that stands in no quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |char| {
        is_quoted ^= char == '"';
        char == separator && !is_quoted
    })
}

/// What each family of OpenMetrics is in the text format.
fn kind(open: &str) -> &str {
    match open {
        "counter" | "gauge" | "histogram" | "summary" => open,
        "info" | "stateset" => "gauge",
        _ => "untyped",
    }
}

/// Makes the text format 0.0.4 from OpenMetrics: a family is named as its samples are, units and the end are left out,
/// times are milliseconds.
fn text(open_metrics: &str) -> String {
    let kinds: BTreeMap<&str, &str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name, kind.trim()))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    let mut line_out = |line: &[&str]| {
        line.iter().for_each(|part| text.push_str(part));
        text.push('\n');
    };
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix('#') else {
            if !line.is_empty() && !is_creation_time(line, &kinds) {
                line_out(&[&sample(line)]);
            }
            continue;
        };
        let mut words = comment.trim_start().splitn(3, ' ');
        let (Some(what), Some(family)) = (words.next(), words.next()) else { continue };
        let rest = words.next().unwrap_or_default();
        let suffix = match kinds.get(family) {
            Some(&"counter") => "_total",
            Some(&"info") => "_info",
            _ => "",
        };
        match what {
            // The text format escapes the backslash and the line's end alone.
            "HELP" => line_out(&["# HELP ", family, suffix, " ", &rest.replace("\\\"", "\"")]),
            "TYPE" => line_out(&["# TYPE ", family, suffix, " ", kind(rest.trim())]),
            _ => {}
        }
    }
    text
}

/// Whether a sample is the time at which a counter, histogram or summary began, which the text format does not know.
fn is_creation_time(sample: &str, kinds: &BTreeMap<&str, &str>) -> bool {
    let name = sample.split(['{', ' ']).next().unwrap_or_default();
    let family = name.strip_suffix("_created").and_then(|family| kinds.get(family));
    family.is_some_and(|kind| ["counter", "histogram", "summary"].contains(kind))
}

/// A sample without its exemplar, and with its time in milliseconds.
fn sample(line: &str) -> String {
    let labels_end = labels_end(line);
    let (series, rest) = line.split_at(labels_end);
    let rest = rest.split_once(" # ").map_or(rest, |(rest, _exemplar)| rest);
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().unwrap_or_default();
    match words.next().and_then(|seconds| seconds.parse::<f64>().ok()) {
        Some(seconds) => format!("{series} {value} {:.0}", seconds * 1_000.0),
        None => format!("{series} {value}"),
    }
}

/// Where the value of a sample begins: after its labels, whose values may hold whatever they like.
fn labels_end(line: &str) -> usize {
    let name_end = line.find(['{', ' ']).unwrap_or(line.len());
    if !line[name_end..].starts_with('{') {
        return name_end;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, char) in line.char_indices().skip_while(|(at, _)| *at < name_end) {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return at + 1,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_shown_to_those_who_ask_for_them_and_text_to_all_others() {
        use Form::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
            q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            ("application/json", Text),
            ("application/*", Text),
            (prometheus, OpenMetrics),
            (prometheus_2, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\"; charset=utf-8", OpenMetrics),
            ("application/openmetrics-text; version=0.0.1", OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Text),
            (
                "application/openmetrics-text; version=2.0.0, application/openmetrics-text",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0, */*", Text),
            ("application/openmetrics-text;q=0.000,text/plain;q=0", Text),
            ("text/plain;version=0.0.4, application/openmetrics-text", OpenMetrics),
            ("text/plain;version=0.0.4;q=1, application/openmetrics-text;q=0.9", Text),
            ("text/plain;q=0.3, application/openmetrics-text;q=0.4", OpenMetrics),
            ("application/openmetrics-text;q=0.4, text/*;q=0.5", Text),
            ("application/openmetrics-text;q=0.4, */*;q=0.9, text/plain;q=0.1", OpenMetrics),
            ("application/openmetrics-text;q=nonsense", Text),
            ("application/openmetrics-text;q=7", Text),
            ("text/plain;note=\"a,application/openmetrics-text\"", Text),
            (",;,", Text),
        ] {
            assert_eq!(Form::accepted([accept]), expected, "{accept}");
        }
        assert_eq!(Form::accepted([]), Text);
        let two = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(Form::accepted(two), OpenMetrics, "two headers are one list");
    }

    #[test]
    fn the_text_form_names_families_as_their_samples_and_drops_what_it_does_not_know() {
        let open = r#"# HELP a_requests Requests, \"all\" of them\\.
# TYPE a_requests counter
a_requests_total{path="/x y # z}",quote="\"}"} 3 1700000000.5 # {trace="1 # 2"} 1 1700000000
a_requests_created{path="/x y # z}",quote="\"}"} 1700000000
# HELP lag_seconds Lag.
# TYPE lag_seconds gauge
# UNIT lag_seconds seconds
lag_seconds -0.5
# HELP took_seconds Time.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_sum 1.5
took_seconds_count 2
took_seconds_bucket{le="1.0"} 1 # {id="a"} 0.5
took_seconds_bucket{le="+Inf"} 2
took_seconds_created 1700000000
# HELP build The program.
# TYPE build info
build_info{version="1"} 1
# HELP a_created A gauge of this name.
# TYPE a_created gauge
a_created 5
# HELP odd Odd.
# TYPE odd unknown
odd NaN
# EOF
"#;
        let expected = r#"# HELP a_requests_total Requests, "all" of them\\.
# TYPE a_requests_total counter
a_requests_total{path="/x y # z}",quote="\"}"} 3 1700000000500
# HELP lag_seconds Lag.
# TYPE lag_seconds gauge
lag_seconds -0.5
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum 1.5
took_seconds_count 2
took_seconds_bucket{le="1.0"} 1
took_seconds_bucket{le="+Inf"} 2
# HELP build_info The program.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP a_created A gauge of this name.
# TYPE a_created gauge
a_created 5
# HELP odd Odd.
# TYPE odd untyped
odd NaN
"#;
        assert_eq!(Form::Text.of(open.to_owned()), expected);
        assert_eq!(Form::OpenMetrics.of(open.to_owned()), open);
    }
}
