//! `docs/reference.md`: every field of a SiemAgent with its type, default and rules, printed from the schema itself.
//!
//! `UPDATE_EXPECT=1` rewrites it.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use siem_agent_crds::schema;

const PATH: &str = "../docs/reference.md";
/// Kubernetes' own types, which its documentation describes.
const FOREIGN: [&str; 3] = ["affinity", "resources", "tolerations"];
const OPENING: &str = "# SiemAgent

`apiVersion: siemagent.dev/v1alpha1`, `kind: SiemAgent`, namespaced; short name `siem`, category `security`.
The API server refuses what breaks a rule, and so does `siem-forwarder`, which takes the same manifest; unknown fields are refused there too.

This page is printed from the schema: `UPDATE_EXPECT=1 cargo test -p siem-agent-crds --test reference`.
";

#[test]
fn the_reference_is_what_the_schema_says() {
    let mut page = OPENING.to_owned();
    let schema = schema::object_schema();
    rules(&schema, &mut page);
    for part in ["spec", "status"] {
        section(&schema["properties"][part], part, &mut page);
    }
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(PATH, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(PATH).unwrap_or_default(), page, "UPDATE_EXPECT=1 rewrites it");
    for (path, field) in fields(&schema, "") {
        let name = path.rsplit('.').next().unwrap();
        assert!(page.contains(&format!("| `{name}` |")), "{path} is missing");
        assert!(
            field.get("description").is_some() || path == ".metadata",
            "{path} is not described"
        );
    }
}

/// Every field that is ours to describe.
fn fields<'a>(schema: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}.{name}");
        if !matches!(at.as_str(), ".spec" | ".status" | ".metadata") {
            found.push((at.clone(), field));
        }
        if is_described_here(name, field) {
            found.extend(fields(field, &at));
            found.extend(fields(&field["items"], &at));
        }
    }
    found
}

fn is_described_here(name: &str, field: &Value) -> bool {
    !FOREIGN.contains(&name) && field.get("x-kubernetes-preserve-unknown-fields").is_none()
}

/// A heading, the fields as a table, the rules that span them; then the same for each object among them.
fn section(schema: &Value, path: &str, page: &mut String) {
    writeln!(page, "\n## {path}\n\n{}\n", text(&schema["description"])).unwrap();
    page.push_str("| field | type | default | |\n| --- | --- | --- | --- |\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    for (name, field) in &properties {
        let default = match &field["default"] {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            Value::Object(object) if !object.is_empty() => "of its fields".to_owned(),
            default => format!("`{default}`"),
        };
        let kind = kind(name, field, path);
        let about = format!("{}{}", text(&field["description"]), limits(field));
        writeln!(page, "| `{name}` | {kind} | {default} | {} |", about.replace('|', "\\|"))
            .unwrap();
    }
    rules(schema, page);
    for (name, field) in properties {
        // Rules of a single value stand at the value.
        if field.get("properties").is_none() || !is_described_here(name, field) {
            rules(field, page);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if !is_described_here(name, field) {
            continue;
        }
        if field.get("properties").is_some() {
            section(field, &format!("{path}.{name}"), page);
        }
        if field["items"].get("properties").is_some() {
            section(&field["items"], &format!("{path}.{name}[]"), page);
        }
    }
}

fn kind(name: &str, field: &Value, path: &str) -> String {
    let plain = text(&field["type"]);
    match plain.as_str() {
        _ if FOREIGN.contains(&name) => "as in a Pod".to_owned(),
        "object" if field.get("x-kubernetes-preserve-unknown-fields").is_some() => {
            "object of any content".to_owned()
        }
        "object" if field.get("properties").is_some() => link(&format!("{path}.{name}"), "object"),
        "object" => format!("map of {}", text(&field["additionalProperties"]["type"])),
        "array" if field["items"].get("properties").is_some() => {
            link(&format!("{path}.{name}[]"), "list of objects")
        }
        "array" => format!("list of {}", text(&field["items"]["type"])),
        _ if field["format"] == "date-time" => "time".to_owned(),
        plain => plain.to_owned(),
    }
}

/// To a heading, as Markdown viewers name it: lower case, without punctuation.
fn link(path: &str, words: &str) -> String {
    let anchor: String = path
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|char| char.to_ascii_lowercase())
        .collect();
    format!("[{words}](#{anchor})")
}

/// What a value must satisfy by itself.
fn limits(field: &Value) -> String {
    let mut limits = String::new();
    let items = &field["items"];
    for (of, each) in [(field, ""), (items, "each ")] {
        if let Some(values) = of["enum"].as_array() {
            let values: Vec<String> =
                values.iter().map(|value| format!("`{}`", text(value))).collect();
            write!(limits, " {each}one of {};", values.join(", ")).unwrap();
        }
        for (least, most, unit) in [
            ("minimum", "maximum", ""),
            ("minLength", "maxLength", " characters"),
            ("minItems", "maxItems", " elements"),
            ("minProperties", "maxProperties", " keys"),
        ] {
            match (of[least].as_f64(), of[most].as_f64()) {
                (Some(least), Some(most)) if least.total_cmp(&most).is_eq() => {
                    write!(limits, " {each}exactly {most}{unit};")
                }
                (Some(least), Some(most)) => write!(limits, " {each}{least} to {most}{unit};"),
                (Some(least), None) => write!(limits, " {each}at least {least}{unit};"),
                (None, Some(most)) => write!(limits, " {each}at most {most}{unit};"),
                (None, None) => Ok(()),
            }
            .unwrap();
        }
        if let Some(pattern) = of["pattern"].as_str() {
            write!(limits, " {each}like `{pattern}`;").unwrap();
        }
    }
    match limits.strip_suffix(';') {
        Some(limits) => format!(" ({})", limits.trim_start()),
        None => limits,
    }
}

fn rules(schema: &Value, page: &mut String) {
    let rules: Vec<_> =
        schema["x-kubernetes-validations"].as_array().into_iter().flatten().collect();
    let goes_on = page.lines().next_back().is_some_and(|line| line.starts_with("- "));
    if !rules.is_empty() && !goes_on {
        page.push('\n');
    }
    for rule in rules {
        writeln!(page, "- {}.", text(&rule["message"])).unwrap();
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
