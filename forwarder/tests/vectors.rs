//! What other programs' tests say about CEF: `fixtures/cef/encode.jsonl` and `fixtures/cef/decode.jsonl`, every one read.
//!
//! Vectors of logstash's codec, Elastic's Beats, Graylog and syslog-ng. Where peers disagree, a vector holds what we
//! write beside what the peer expects, and why.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

#[path = "reader/cef.rs"]
mod reader;

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use siem_agent_forwarder::format::cef::{Field, Record, escape};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encode {
    peer: String,
    kind: String,
    input: String,
    expected: String,
    ours: Option<String>,
    why: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decode {
    peer: String,
    name: String,
    line: String,
    fields: Option<BTreeMap<String, String>>,
    refused: Option<String>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

fn vectors<T: DeserializeOwned>(path: &str, n_expected: usize) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    let vectors: Vec<T> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(vectors.len(), n_expected, "{path}: none is left out");
    vectors
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[test]
fn values_are_escaped_as_the_vectors_say() {
    for vector in vectors::<Encode>("fixtures/cef/encode.jsonl", 38) {
        let Encode { peer, kind, input, expected, ours, why } = vector;
        assert_eq!(ours.is_some(), why.is_some(), "a difference has its reason: {input:?}");
        let expected = ours.unwrap_or(expected);
        let mut actual = String::new();
        match kind.as_str() {
            "header" => escape::header(&input, &mut actual),
            "value" => escape::value(&input, &mut actual),
            // Our keys are constants: what a peer must strip is never written, what it leaves could be.
            "key" => {
                assert!(is_key(&expected) && !is_key(&input), "{peer}: {input:?}");
                continue;
            }
            other => panic!("no such kind of vector: {other}"),
        }
        assert_eq!(actual, expected, "{peer}: {kind} {input:?}");
    }
}

#[test]
fn lines_are_read_or_refused_as_the_vectors_say() {
    for Decode { peer, name, line, fields, refused, .. } in
        vectors::<Decode>("fixtures/cef/decode.jsonl", 22)
    {
        let read = reader::read(&line);
        match (&read, &fields, &refused) {
            (Ok(read), Some(fields), None) => {
                let header = ["deviceVendor", "deviceProduct", "version", "signature", "name"];
                let named =
                    header.iter().zip(&read.header[1..]).map(|(key, value)| (*key, value.as_str()));
                let all: BTreeMap<&str, &str> = named
                    .chain(read.extension.iter().map(|(key, value)| (key.as_str(), value.as_str())))
                    .collect();
                for (key, value) in fields {
                    assert_eq!(
                        all.get(key.as_str()),
                        Some(&value.as_str()),
                        "{peer}: {name}: {key}"
                    );
                }
                let n_header = fields.keys().filter(|key| header.contains(&key.as_str())).count();
                assert_eq!(read.extension.len(), fields.len() - n_header, "{peer}: {name}");
            }
            (Err(refusal), None, Some(expected)) => {
                assert_eq!(&format!("{refusal:?}"), expected, "{peer}: {name}");
            }
            _ => panic!("{peer}: {name}: {read:?}"),
        }
        comes_back(&line, &read);
    }
}

/// What a peer has read, and the hostile line itself as a value, come back from a line that we write.
fn comes_back(line: &str, read: &Result<reader::Line, reader::Refusal>) {
    let mut extension = vec![("msg".to_owned(), line.to_owned())];
    let mut name = line.to_owned();
    if let Ok(read) = read {
        extension.extend(read.extension.clone());
        name.clone_from(&read.header[5]);
    }
    let record = Record {
        version: "0.1.0".into(),
        signature: "S".into(),
        name: name.as_str().into(),
        severity: 10,
        extension: extension
            .iter()
            .map(|(key, value)| Field { key: key.clone().leak(), value: value.clone().into() })
            .collect(),
    };
    let mut written = String::new();
    record.write(&mut written);
    let again = reader::read(&written).unwrap();
    for ((key, value), (own_key, own_value)) in extension.iter().zip(&again.extension) {
        assert_eq!((key, escape::sanitized(value).as_ref()), (own_key, own_value.as_str()));
    }
    assert_eq!(again.extension.len(), extension.len());
    assert_eq!(again.header[5], escape::sanitized(&name).replace("\r\n", " ").replace('\n', " "));
}
