//! What records of Microsoft Graph cost beside the parsing of their JSON.
//!
//! `cargo bench -p siem-agent-forwarder --bench xdr` prints, for alerts of `alerts_v2` and for rows of `CloudAppEvents` as
//! hunting gives them, records a second through a bare typed parse, through `parse -> map` and `parse -> map -> frame` of
//! the same bytes, and the ratio to the first. The types are what a program that only reads these records would declare: texts are borrowed
//! wherever they hold no escape, and nothing is checked.

#![expect(clippy::print_stdout, reason = "what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark of good records")]

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use serde::Deserialize;
use siem_agent_forwarder::event::Event;
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_forwarder::source::xdr::{self, Table};
use siem_agent_forwarder::syslog::{self, Framing, Header, Layout, TimeFormat};
use tokio::time::Instant;

const N_RECORDS: usize = 500;
/// The best of so many rounds counts: whatever disturbs a round only makes it longer.
const ROUNDS: usize = 60;

type Text<'a> = Option<Cow<'a, str>>;
type Run<'a> = &'a dyn Fn(&[u8]);

/// Fields that are there to be read.
macro_rules! wire {
    ($name:ident { $($wire:literal => $field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "what is measured is reading the fields, not using them")]
        struct $name<'a> {
            $(#[serde(rename = $wire, default)] $field: $kind,)*
            #[serde(skip)]
            lifetime: std::marker::PhantomData<&'a ()>,
        }
    };
}

wire!(Alert {
    "id" => id: Text<'a>,
    "providerAlertId" => provider_id: Text<'a>,
    "incidentId" => incident: Text<'a>,
    "status" => status: Text<'a>,
    "severity" => severity: Text<'a>,
    "serviceSource" => service_source: Text<'a>,
    "detectionSource" => detection_source: Text<'a>,
    "productName" => product: Text<'a>,
    "detectorId" => detector: Text<'a>,
    "alertPolicyId" => policy: Text<'a>,
    "tenantId" => tenant: Text<'a>,
    "title" => title: Text<'a>,
    "description" => description: Text<'a>,
    "category" => category: Text<'a>,
    "alertWebUrl" => url: Text<'a>,
    "createdDateTime" => created: Text<'a>,
    "lastUpdateDateTime" => updated: Text<'a>,
    "firstActivityDateTime" => first: Text<'a>,
    "lastActivityDateTime" => last: Text<'a>,
    "evidence" => evidence: Vec<Evidence<'a>>,
});

wire!(Evidence {
    "@odata.type" => kind: Text<'a>,
    "verdict" => verdict: Text<'a>,
    "userAccount" => account: Option<Account<'a>>,
    "ipAddress" => address: Text<'a>,
    "countryLetterCode" => country: Text<'a>,
    "appId" => app: Option<i64>,
    "saasAppId" => saas_app: Option<i64>,
    "displayName" => name: Text<'a>,
    "instanceName" => instance: Text<'a>,
});

wire!(Account {
    "accountName" => name: Text<'a>,
    "azureAdUserId" => id: Text<'a>,
    "userPrincipalName" => principal: Text<'a>,
    "displayName" => display_name: Text<'a>,
});

wire!(Row {
    "ReportId" => id: Text<'a>,
    "Timestamp" => timestamp: Text<'a>,
    "ActionType" => action: Text<'a>,
    "ApplicationId" => application_id: Option<i64>,
    "Application" => application: Text<'a>,
    "AccountDisplayName" => account: Text<'a>,
    "AccountObjectId" => object: Text<'a>,
    "AccountId" => account_id: Text<'a>,
    "IPAddress" => address: Text<'a>,
    "UserAgent" => agent: Text<'a>,
    "ActivityType" => activity: Text<'a>,
    "ObjectName" => object_name: Text<'a>,
    "ObjectType" => object_type: Text<'a>,
    "ActivityObjects" => objects: Vec<Object<'a>>,
    "RawEventData" => original: Option<Original<'a>>,
});

wire!(Object {
    "Type" => kind: Text<'a>,
    "Role" => role: Text<'a>,
    "Name" => name: Text<'a>,
    "Value" => value: Text<'a>,
    "ServiceObjectType" => service_type: Text<'a>,
});

wire!(Original {
    "Id" => id: Text<'a>,
    "UserId" => user: Text<'a>,
    "MailboxOwnerUPN" => owner: Text<'a>,
});

fn main() {
    let alerts = corpus(include_str!("../fixtures/graph-alert/anomalous-token.json"), "66f1c0de");
    let rows = corpus(include_str!("../fixtures/cloud-app-event/run-command.json"), "12345678");
    let alert = |json: &[u8]| xdr::alert(json).unwrap();
    let row = |json: &[u8]| xdr::row(Table::CloudAppEvents, json).unwrap().unwrap();
    report("alerts of alerts_v2", &alerts, alert, |json| {
        black_box(serde_json::from_slice::<Alert<'_>>(json).unwrap());
    });
    report("rows of CloudAppEvents", &rows, row, |json| {
        black_box(serde_json::from_slice::<Row<'_>>(json).unwrap());
    });
}

/// Records that differ a little, without the white space that the API does not send.
fn corpus(template: &str, varied: &str) -> Vec<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_str(template).unwrap();
    let template = value.to_string();
    let number = |index: usize| format!("{:08}", 10_000_000 + index);
    (0..N_RECORDS).map(|index| template.replace(varied, &number(index)).into_bytes()).collect()
}

/// Takes turns, so that both see the same machine.
fn report(what: &str, records: &[Vec<u8>], parse: impl Fn(&[u8]) -> Event, bare: impl Fn(&[u8])) {
    let layout = Layout {
        header: Header::Legacy,
        time_format: TimeFormat::Rfc5424,
        pri: Some(109),
        host: Some("soc".to_owned()),
        framing: Framing::Newline,
        max_message_bytes: 8_000,
    };
    let mapped = |json: &[u8]| {
        black_box(map::record(&parse(json), Dialect::Legacy, "0.1.0"));
    };
    let framed = |json: &[u8]| {
        let event = parse(json);
        let record = map::record(&event, Dialect::Legacy, "0.1.0");
        black_box(syslog::frame(record, event.timestamp(), &layout).unwrap());
    };
    let time = |run: Run<'_>| {
        let start = Instant::now();
        records.iter().for_each(|json| run(json));
        start.elapsed()
    };
    let runs: [Run<'_>; 3] = [&bare, &mapped, &framed];
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        for (best, run) in best.iter_mut().zip(runs) {
            *best = time(run).min(*best);
        }
    }
    let [bare, mapped, framed] = best.map(|time| N_RECORDS as f64 / time.as_secs_f64());
    let n_bytes = records.iter().map(Vec::len).sum::<usize>() / N_RECORDS;
    println!("{what}, {n_bytes} bytes a record");
    println!("  bare typed parse       {bare:>10.0} records/s");
    println!("  parse -> map           {mapped:>10.0} records/s   ratio {:.2}", mapped / bare);
    println!("  parse -> map -> frame  {framed:>10.0} records/s   ratio {:.2}", framed / bare);
}
