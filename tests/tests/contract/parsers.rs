//! Other people's CEF code reads every golden line back: jc, pycef and cefevent, by `tests/parsers/read.py`.
//!
//! jc and pycef parse the lines. cefevent, which knows the dictionary of the standard with its types and lengths, writes
//! each strict line anew from what it means. Where one of them leaves the standard, the place is listed here and what it
//! does there is asserted, so that the list is true for as long as it stands.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

#[path = "../../../forwarder/tests/reader/records.rs"]
mod records;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_forwarder::event::Event;
use siem_agent_forwarder::format::cef::Record;
use siem_agent_forwarder::format::cef::escape::{self, sanitized};
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_tests::installed::installed;

/// jc and pycef look for a header without any escape: a signature with one is not read at all.
const SIGNATURE_ESCAPED: [&str; 2] = ["activity/forged", "activity/hostile-signature"];
/// And a name with one is read as empty, without a severity; what follows it becomes part of the first key.
const NAME_ESCAPED: [&str; 5] = [
    "activity/hostile-header",
    "alert/forged",
    "alert/title-only",
    "cloud-app-event/hostile",
    "graph-alert/hostile",
];
/// jc undoes one kind of escape after the other: of a backslash and an n it makes a line break, though it was no escape.
const UNESCAPED_TWICE: [(&str, &str); 5] = [
    ("activity/backslashes", "suser"),
    ("activity/backslashes", "requestClientApplication"),
    ("activity/backslashes", "cs3"),
    ("activity/hostile-line-ends", "msg"),
    ("activity/no-numbers", "requestClientApplication"),
];
/// cefevent has an escape for LF only, and writes a CR as it is.
const BARE_CR: [&str; 3] = [
    "activity/control-characters",
    "cloud-app-event/hostile",
    "identity-logon-event/another-action",
];
/// cefevent takes no number that is zero for `cn1`.
const SCORE_REFUSED: [&str; 1] = ["alert/velocity-ipv6"];

struct Golden {
    name: String,
    dialect: Dialect,
    line: String,
    event: Event,
}

impl Golden {
    /// What the line means.
    fn record(&self) -> Record<'_> {
        map::record(&self.event, self.dialect, "0.1.0")
    }
}

/// A record's fields by the names that a parser gives them.
type Fields = BTreeMap<String, String>;

fn goldens() -> Vec<Golden> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forwarder/fixtures");
    let mut goldens = Vec::new();
    for (name, path, event) in records::all(&fixtures) {
        for (dialect, extension) in [(Dialect::Legacy, "cef"), (Dialect::Strict, "strict.cef")] {
            let line = fs::read_to_string(path.with_extension(extension)).unwrap();
            let line = line.trim_end_matches('\n').to_owned();
            goldens.push(Golden { name: name.clone(), dialect, line, event: event.clone() });
        }
    }
    assert!(goldens.len() > 60, "{} lines", goldens.len());
    goldens
}

/// What `read.py` says of each line, in order.
fn answers(goldens: &[Golden]) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let asked = folder.path().join("asked");
    let questions: String = goldens
        .iter()
        .map(|golden| {
            let record = golden.record();
            let header = json!({"version": "0", "deviceVendor": "MCAS", "deviceProduct": "SIEM_Agent",
                "deviceVersion": record.version, "signatureId": in_header(&record.signature),
                "name": in_header(&record.name), "severity": record.severity});
            let pairs: Vec<_> = record.extension.iter().map(|field| (field.key, sanitized(&field.value))).collect();
            format!("{}\n", json!({"line": golden.line, "header": header, "extension": pairs}))
        })
        .collect();
    fs::write(&asked, questions)?;
    let out = Command::new(installed("parsers/bin/python")?)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("parsers/read.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(File::open(&asked)?)
        .stderr(Stdio::inherit())
        .output()
        .context("start the parsers: tests/run installs them anew where Python has changed")?;
    ensure!(out.status.success(), "the parsers ended with {}", out.status);
    let answers: Vec<Value> = String::from_utf8(out.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(answers.len() == goldens.len(), "an answer for every line");
    Ok(answers)
}

/// A line break is one space in the header.
fn in_header(value: &str) -> String {
    sanitized(value).replace("\r\n", " ").replace(['\r', '\n'], " ")
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    escape::value(value, &mut text);
    text
}

fn header_escaped(value: &str) -> String {
    let mut text = String::new();
    escape::header(value, &mut text);
    text
}

/// jc's order of undoing escapes.
fn undone_by_jc(escaped: &str) -> String {
    let pairs = [
        ("\\\\", "\\"),
        ("\\\"", "\""),
        ("\\]", "]"),
        ("\\|", "|"),
        ("\\=", "="),
        ("\\%", "%"),
        ("\\#", "#"),
        ("\\n", "\n"),
        ("\\r", "\r"),
    ];
    pairs.iter().fold(escaped.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// jc's names: letters and digits, with underscores between.
fn named_by_jc(name: &str) -> String {
    let plain = name.replace(|char: char| !char.is_ascii_alphanumeric(), "_");
    plain.trim_matches('_').to_owned()
}

/// The pairs as both parsers give them: without empty values, custom ones by their labels.
fn pairs(record: &Record<'_>, value: fn(&str) -> String, name: fn(&str) -> String) -> Fields {
    let value_of = |key: &str| {
        let field = record.extension.iter().find(|field| field.key == key);
        field.map(|field| sanitized(&field.value).into_owned()).filter(|value| !value.is_empty())
    };
    let mut pairs = Fields::new();
    for field in &record.extension {
        let Some(meant) = value_of(field.key) else { continue };
        match field.key.strip_suffix("Label") {
            // Its value bears its name.
            Some(custom) if value_of(custom).is_some() => {}
            Some(_) | None => {
                let own = value_of(&format!("{}Label", field.key)).map(|label| name(&label));
                pairs.insert(own.unwrap_or_else(|| field.key.to_owned()), value(&meant));
            }
        }
    }
    pairs
}

/// What a parser must say of a line, `None` for nothing at all.
fn expected(
    golden: &Golden,
    header: [&str; 7],
    value: fn(&str) -> String,
    name: fn(&str) -> String,
) -> Option<Fields> {
    if SIGNATURE_ESCAPED.contains(&golden.name.as_str()) {
        return None;
    }
    let record = golden.record();
    let mut fields = pairs(&record, value, name);
    let severity = record.severity.to_string();
    let mut own_name = in_header(&record.name);
    let has_escape = header_escaped(&record.name).contains('\\');
    assert_eq!(has_escape, NAME_ESCAPED.contains(&golden.name.as_str()), "{}", golden.name);
    if has_escape {
        let id = fields.remove("externalId").unwrap();
        let written = header_escaped(&record.name);
        let last = written.rsplit([' ', '=']).next().unwrap();
        fields.insert(name(&format!("{last}|{severity}|externalId")), id);
        own_name.clear();
    } else {
        fields.insert(header[5].to_owned(), severity);
    }
    let signature = in_header(&record.signature);
    let known = ["0", "MCAS", "SIEM_Agent", &record.version, &signature];
    fields
        .extend(header.iter().zip(known).map(|(key, value)| ((*key).to_owned(), value.to_owned())));
    fields.insert(header[6].to_owned(), own_name);
    Some(fields)
}

/// An answer as text, without what the parser derives from other fields.
fn said(answer: &Value, derived: fn(&str) -> bool) -> Fields {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = answer["read"].as_object().into_iter().flatten();
    fields.filter(|(key, _)| !derived(key)).map(|(key, value)| (key.clone(), text(value))).collect()
}

#[test]
fn jc_reads_what_we_meant() -> Result<()> {
    let goldens = goldens();
    let mut twice = Vec::new();
    for (golden, answer) in goldens.iter().zip(answers(&goldens)?) {
        let header = [
            "CEFVersion",
            "deviceVendor",
            "deviceProduct",
            "deviceVersion",
            "deviceEventClassId",
            "agentSeverity",
            "name",
        ];
        let fields = said(&answer["jc"], |key| {
            key.ends_with("_epoch")
                || key.ends_with("_epoch_utc")
                || ["agentSeverityString", "agentSeverityNum", "deviceEventClassIdNum"]
                    .contains(&key)
        });
        let reads = |value: &str| undone_by_jc(&escaped(value));
        match expected(golden, header, reads, named_by_jc) {
            Some(expected) => assert_eq!(fields, expected, "{}: {}", golden.name, golden.line),
            None => {
                assert_eq!(fields.keys().collect::<Vec<_>>(), ["unparsable"], "{}", golden.name);
            }
        }
        let record = golden.record();
        let strict = record.extension.iter().filter(|_| golden.dialect == Dialect::Strict);
        twice.extend(
            strict
                .filter(|field| reads(&field.value) != sanitized(&field.value))
                .map(|field| (golden.name.as_str(), field.key)),
        );
    }
    assert_eq!(twice, UNESCAPED_TWICE, "everything else comes back as it was meant");
    Ok(())
}

#[test]
fn pycef_reads_what_stands_on_the_line() -> Result<()> {
    let goldens = goldens();
    for (golden, answer) in goldens.iter().zip(answers(&goldens)?) {
        let header = [
            "CEFVersion",
            "DeviceVendor",
            "DeviceProduct",
            "DeviceVersion",
            "DeviceEventClassID",
            "Severity",
            "Name",
        ];
        let fields = said(&answer["pycef"], |key| ["DeviceName", "DeviceSeverity"].contains(&key));
        // It undoes no escape.
        match expected(golden, header, escaped, str::to_owned) {
            Some(expected) => assert_eq!(fields, expected, "{}: {}", golden.name, golden.line),
            None => assert_eq!(answer["pycef"]["error"], "IndexError: list index out of range"),
        }
    }
    Ok(())
}

#[test]
fn cefevent_writes_the_same_strict_line() -> Result<()> {
    let goldens = goldens();
    let (mut bare, mut refused) = (Vec::new(), Vec::new());
    for (golden, answer) in goldens.iter().zip(answers(&goldens)?) {
        if golden.dialect != Dialect::Strict {
            continue;
        }
        let mut written = answer["cefevent"]["line"].as_str().unwrap().to_owned();
        if written.contains('\r') {
            bare.push(golden.name.as_str());
            written = written.replace('\r', "\\r");
        }
        let at = golden.line.find("CEF:0|").unwrap();
        let mut own = golden.line[at..].to_owned();
        match answer["cefevent"]["refused"].as_array().unwrap().as_slice() {
            [] => {}
            [key] if key == "cn1" => {
                refused.push(golden.name.as_str());
                let record = golden.record();
                let score = record.extension.iter().find(|field| field.key == "cn1").unwrap();
                own = own.replace(&format!(" cn1={}", escaped(&score.value)), "");
            }
            others => panic!("{}: refused {others:?}", golden.name),
        }
        assert_eq!(written, own, "{}", golden.name);
    }
    assert_eq!(bare, BARE_CR, "the only lines with a CR");
    assert_eq!(refused, SCORE_REFUSED, "the only scores that are zero");
    Ok(())
}
