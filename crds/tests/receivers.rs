//! `docs/receivers.md`: a recipe for each receiver, printed from the table of presets.
//!
//! `UPDATE_EXPECT=1` rewrites it.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;
use siem_agent_crds::manifest;
use siem_agent_crds::receiver::{Evidence, PRESETS};

const PATH: &str = "../docs/receivers.md";
const OPENING: &str = "# Receivers

`spec.syslog.receiver` names what listens at `spec.syslog.host`. It sets the defaults of `port`, `header`, `framing`, \
`maxMessageBytes`, `timeFormat` and `dialect` to what that receiver takes with *its* own defaults; what the SiemAgent gives itself wins. \
`siem-operator render -f siemagent.yaml --effective` prints what comes of it, and `siem-forwarder check` tries it. On UDP \
`maxMessageBytes` is 2048 whatever the receiver.

Without a receiver the settings are those of rsyslog, which most others take too.

This page is printed from the table of presets: `UPDATE_EXPECT=1 cargo test -p siem-agent-crds --test receivers`.
";

#[test]
fn the_page_is_what_the_table_says_and_each_manifest_is_legal() {
    let mut page = OPENING.to_owned();
    page.push_str("\n| receiver | port | header | timeFormat | framing | maxMessageBytes | dialect | rests on |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for preset in PRESETS {
        let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
        writeln!(
            page,
            "| [`{name}`](#{anchor}) | {port} | {} | {} | {} | {} | {} | {} |",
            word(json!(preset.header)),
            word(json!(preset.time_format)),
            word(json!(preset.framing)),
            preset.max_message_bytes,
            word(json!(preset.dialect)),
            evidence(preset.evidence),
            name = word(json!(preset.receiver)),
            anchor = anchor(preset.title),
            port = preset.port.map_or_else(|| "514, TLS 6514".to_owned(), |port| port.to_string()),
        )
        .unwrap();
    }
    for preset in PRESETS {
        let recipe = preset.receiver.recipe();
        let name = json!(preset.receiver);
        let port = recipe.port.map_or_else(String::new, |port| format!(", port: {port}"));
        if let Some(port) = recipe.port {
            assert!(recipe.setup.contains(&port.to_string()), "{name} listens on {port}");
        }
        let spec = format!(
            "  syslog: {{host: siem.example.com, receiver: {}{port}}}\n{}",
            name.as_str().unwrap(),
            recipe.spec
        );
        let text = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: soc}}\nspec:\n  source:\n    cloudApps: {{url: \
             https://contoso.us2.portal.cloudappsecurity.com}}\n    auth: {{tokenSecretRef: {{name: defender}}}}\n{spec}"
        );
        let problems = manifest::read(&text).err().map(|problems| problems.to_string());
        assert_eq!(problems, None, "{name}");
        write!(
            page,
            "\n## {}\n\nThe receiver. {}\n\nThe SiemAgent:\n\n```yaml\nspec:\n{spec}```\n\nTo see that it works: {}\n\nThis rests on: {}.\n",
            preset.title,
            recipe.setup,
            recipe.check,
            evidence(preset.evidence),
        )
        .unwrap();
    }
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(PATH, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(PATH).unwrap_or_default(), page, "UPDATE_EXPECT=1 rewrites it");
}

fn evidence(evidence: Evidence) -> String {
    match evidence {
        Evidence::Tested => "a test of this project on the receiver itself".to_owned(),
        Evidence::Code(source) => format!("its published code ({source})"),
        Evidence::Documentation(source) => format!("documentation ({source})"),
        Evidence::Unverified(source) => format!("nothing that was verified ({source})"),
    }
}

/// As Markdown viewers name a heading.
fn anchor(title: &str) -> String {
    let kept =
        title.chars().filter(|char| char.is_ascii_alphanumeric() || *char == ' ' || *char == '-');
    kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
}
