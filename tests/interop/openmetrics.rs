//! Reads OpenMetrics text as strictly as its specification (1.0.0, "ABNF" and "Overall Structure")
//! allows: what is not right is a panic.
//!
//! Not implemented: exemplars, time stamps, summaries and state sets, which the camera has none of.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels, the labels as written but in order of their names.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) samples: BTreeMap<(String, Vec<(String, String)>), f64>,
    /// Families and their types.
    pub(crate) types: BTreeMap<String, String>,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with the end");
        let mut metrics = Self { samples: BTreeMap::new(), types: BTreeMap::new() };
        let (mut family, mut told) = (String::new(), BTreeSet::new());
        for line in body.lines() {
            assert_eq!(line.trim_end(), line);
            let Some(told_of) = line.strip_prefix("# ") else {
                metrics.sample(&family, line);
                continue;
            };
            let mut words = told_of.splitn(3, ' ');
            let [keyword, name, rest] = [(); 3].map(|()| words.next().unwrap_or(""));
            assert!(is_name(name), "{line}");
            if name != family {
                let is_new = !metrics.types.contains_key(name);
                assert!(is_new, "the lines of {name} are not together");
                family = name.to_owned();
                told.clear();
            }
            assert!(told.insert(keyword.to_owned()), "twice: {line}");
            match keyword {
                "HELP" => assert!(!rest.is_empty(), "{line}"),
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                    metrics.types.insert(family.clone(), rest.to_owned());
                }
                _ => panic!("{line}"),
            }
        }
        metrics.check_histograms();
        metrics
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (name, labels, value) = split(line);
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("not of {family}: {line}"));
        let suffixes: &[&str] = match &*self.types[family] {
            "counter" => &["_total"],
            "gauge" => &[""],
            _ => &["_sum", "_count", "_bucket"],
        };
        assert!(suffixes.contains(&suffix), "{line}");
        assert_eq!(suffix == "_bucket", labels.iter().any(|(name, _)| name == "le"), "{line}");
        assert!(value.is_finite() && (suffix.is_empty() || value >= 0.0), "{line}");
        let mut sorted = labels;
        sorted.sort();
        assert!(sorted.windows(2).all(|two| two[0].0 != two[1].0), "{line}");
        let before = self.samples.insert((name, sorted), value);
        assert!(before.is_none(), "twice: {line}");
    }

    /// Buckets are cumulative, and the last has no bound and counts all.
    fn check_histograms(&self) {
        let mut counts: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), &value) in &self.samples {
            let Some(family) = name.strip_suffix("_bucket") else { continue };
            let (le, others): (Vec<_>, Vec<_>) =
                labels.iter().cloned().partition(|(name, _)| name == "le");
            let le = le[0].1.replace("+Inf", "inf").parse().unwrap();
            counts.entry((family.to_owned(), others)).or_default().push((le, value));
        }
        for ((family, labels), mut buckets) in counts {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.windows(2).all(|two| two[0].1 <= two[1].1), "{family} {buckets:?}");
            let last = buckets.last().unwrap();
            assert!(last.0.is_infinite());
            assert_eq!(Some(&last.1), self.samples.get(&(family + "_count", labels)));
        }
    }

    /// The value of the only sample of this name that has these labels.
    pub(crate) fn value(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let mut rows = self.samples.iter().filter(|((sample, labels), _)| {
            let has = |&(name, value): &(&str, &str)| {
                labels.iter().any(|(other, is)| other == name && is == value)
            };
            sample == name && wanted.iter().all(has)
        });
        let value = rows.next().map(|(_, &value)| value);
        assert!(rows.next().is_none(), "{name} {wanted:?} is not one");
        value
    }
}

/// Name, labels and value of a sample.
fn split(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let end = closing_quote(quoted);
            labels.push((label.to_owned(), quoted[..end].to_owned()));
            rest = &quoted[end + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => break rest = more,
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    panic!("no end: {text}");
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    text.bytes().next().is_some_and(is_letter)
        && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

#[test]
fn what_is_not_right_is_found() {
    let right =
        "# HELP a A.\n# TYPE a counter\na_total{x=\"1\\\"\"} 1\na_total{x=\"2\"} 3\n# EOF\n";
    assert_eq!(Metrics::parse(right).value("a_total", &[("x", "2")]), Some(3.0));
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total{x=\"2\"}", "a{x=\"2\"}"),
        ("x=\"2\"", "x=\"1\\\"\""),
        ("} 3", "} -3"),
        ("} 3", "} NaN"),
        ("# TYPE a counter", "# TYPE a counter\n# TYPE a gauge"),
        ("# TYPE a counter", "# TYPE a counter\n# UNIT a bytes"),
        ("a_total{x=\"2\"}", "b_total{x=\"2\"}"),
        ("x=\"2\"", "x=\"2"),
        ("} 3", "}3"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right);
        assert!(std::panic::catch_unwind(|| Metrics::parse(&wrong)).is_err(), "{wrong}");
    }
}
