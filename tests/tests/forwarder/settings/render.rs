//! `render` of what the sources that live on deliver: pages of Microsoft Graph, answers to hunting, messages of Event Hubs.
//! Which kind a record is it finds out itself, and what it writes no line of it names.

use anyhow::{Result, ensure};
use siem_agent_tests::program::forwarder;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/fixtures/legal/minimal.yaml");

const ALERT: &str = r#"{"id":"ca66f1c0de","providerAlertId":"66f1c0de","createdDateTime":"2026-10-03T11:30:02.4866667Z","title":"One","serviceSource":"microsoftDefenderForCloudApps"}"#;
const OTHER_ALERT: &str = r#"{"id":"rm7","createdDateTime":"2026-10-03T11:31:02Z","title":"Two"}"#;
const ROW: &str = r#"{"Timestamp":"2026-10-03T11:23:17Z","ReportId":"1_15600_a","ActionType":"FileDownloaded","ActivityObjects":"[{\"Name\":\"a.txt\"}]","ActivityObjects@odata.type":"String"}"#;
const LOG_ON: &str = r#"{"Table":"IdentityLogonEvents","Timestamp":"2026-10-03T11:23:17Z","ReportId":"88a8","ActionType":"LogonSuccess","Application":"Microsoft 365"}"#;
const ON_PREMISES: &str = r#"{"Table":"IdentityLogonEvents","Timestamp":"2026-10-03T11:23:17Z","ReportId":"88a9","ActionType":"LogonSuccess","Application":"Active Directory"}"#;

/// What is written, as NAME and externalId, and what is told.
async fn rendered(input: &str, more: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
    let ended = forwarder(&[&["render", "--manifest", MANIFEST], more].concat(), input).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let line = |line: &str| {
        let id = line.split("externalId=").nth(1).and_then(|rest| rest.split(' ').next());
        format!("{} {}", line.split('|').nth(5).unwrap_or_default(), id.unwrap_or_default())
    };
    Ok((ended.out.lines().map(line).collect(), ended.err.lines().map(str::to_owned).collect()))
}

#[tokio::test]
async fn render_takes_what_each_source_delivers() -> Result<()> {
    let hub = |table: &str, row: &str| {
        format!(
            r#"{{"time":"2026-10-03T11:29:06.6566759Z","tenantId":"t","operationName":"Publish","category":"AdvancedHunting-{table}","properties":{row},"Tenant":"DefaultTenant"}}"#
        )
    };
    let message = format!(
        r#"{{"records":[{},{}]}}"#,
        hub("CloudAppEvents", ROW),
        hub("IdentityLogonEvents", LOG_ON)
    );
    let alerts = ["One 66f1c0de", "Two rm7"];
    let rows = ["Download file 1_15600_a", "Log on 88a8"];
    for (input, expected) in [
        (
            format!(
                r#"{{"@odata.context":"x","@odata.nextLink":"y","value":[{ALERT},{OTHER_ALERT}]}}"#
            ),
            alerts,
        ),
        (format!("[{ALERT},{OTHER_ALERT}]"), alerts),
        (format!("{ALERT}\r\n{OTHER_ALERT}\r\n"), alerts),
        (
            format!(
                r#"{{"schema":[{{"name":"Timestamp","type":"DateTime"}}],"results":[{ROW},{LOG_ON}]}}"#
            ),
            rows,
        ),
        (format!("{ROW}\n{LOG_ON}"), rows),
        (message.clone(), rows),
        // As a blob holds them.
        (format!("{}\n{}\n", hub("CloudAppEvents", ROW), hub("IdentityLogonEvents", LOG_ON)), rows),
    ] {
        let (lines, told) = rendered(&input, &[]).await?;
        ensure!(lines == expected && told.is_empty(), "{input}: {lines:?} {told:?}");
    }
    // As a consumer of a hub saves them, a message a line, or all in one array.
    for input in [format!("{message}\n{message}"), format!("[{message},{message}]")] {
        let (lines, told) = rendered(&input, &[]).await?;
        ensure!(lines == [rows, rows].concat() && told.is_empty(), "{input}: {lines:?} {told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_render_writes_no_line_of_is_named_and_costs_its_neighbours_nothing() -> Result<()> {
    let hub = r#"{"category":"AdvancedHunting-AlertInfo","properties":{"Timestamp":"2026-10-03T11:23:17Z"}}"#;
    for (odd, why) in [
        (ON_PREMISES, "sign-in to Active Directory"),
        (r#"{"Table":"DeviceEvents","Timestamp":"2026-10-03T11:23:17Z"}"#, "`DeviceEvents`"),
        (hub, "`AlertInfo`"),
        (r#"{"ReportId":"1","ActionType":"Move"}"#, "missing_timestamp"),
        (r#"{"Timestamp":"2026-10-03T11:23:17","ReportId":"1"}"#, "missing_timestamp"),
        (r#"{"Timestamp":"2026-10-03T11:23:17Z","ActionType":"Move"}"#, "missing_id"),
        (r#"{"id":"ca1","createdDateTime":null}"#, "missing_timestamp"),
        (r#"{"createdDateTime":"2026-10-03T11:23:17Z"}"#, "missing_id"),
        (r#"{"id":"ca1",}"#, "malformed"),
        ("5", "not_an_object"),
    ] {
        let page = |list: &str| format!(r#"{{"{list}":[{ALERT},{odd},{ROW}],"n":NaN}}"#);
        let (value, records) = (page("value"), page("records"));
        for (input, n) in [
            (value.clone(), 1),
            (page("results"), 1),
            (records.clone(), 1),
            (format!("{records}\n{value}\n"), 2),
            (format!("[{records},{value}]"), 2),
        ] {
            let (lines, told) = rendered(&input, &[]).await?;
            let expected = ["One 66f1c0de", "Download file 1_15600_a"].repeat(n);
            ensure!(lines == expected && told.len() == n, "{input}: {lines:?} {told:?}");
            for told in told {
                ensure!(told.contains("record skipped: it") && told.contains(why), "{odd}: {told}");
            }
        }
    }
    let both = format!("{ALERT}\n{ROW}");
    for (stream, line, told) in [
        ("alerts", "One 66f1c0de", "it is of the stream `activities`"),
        ("activities", "Download file 1_15600_a", "it is of the stream `alerts`"),
    ] {
        let (lines, skipped) = rendered(&both, &["--stream", stream]).await?;
        ensure!(lines == [line] && skipped.len() == 1 && skipped[0].contains(told), "{skipped:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_record_that_holds_a_list_is_no_page_and_a_deep_one_is_no_trouble() -> Result<()> {
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let rows = format!("{}\n", ROW.replacen('{', &format!("{{\"x\":{deep},"), 1)).repeat(2);
    let (lines, told) = rendered(&rows, &[]).await?;
    ensure!(lines == ["Download file 1_15600_a"; 2] && told.is_empty(), "{lines:?} {told:?}");
    for number in ["1", "NaN"] {
        for list in ["data", "value", "results", "records"] {
            for list in [format!(r#""{list}":[]"#), format!(r#""{list}":[{{"a":1}},2]"#)] {
                let record = format!(r#"{{"_id":"p1","timestamp":1,{list},"q":{number}}}"#);
                let (lines, told) = rendered(&record, &[]).await?;
                let is_one = lines.len() == 1 && lines[0].ends_with(" p1");
                ensure!(is_one && told.is_empty(), "{record}: {lines:?} {told:?}");
            }
        }
        let page = format!(r#"{{"data":[{{"_id":"p1","timestamp":1}}],"id":"x","q":{number}}}"#);
        let (lines, told) = rendered(&page, &[]).await?;
        ensure!(lines.len() == 1 && told.is_empty(), "{page}: {lines:?} {told:?}");
    }
    Ok(())
}
