//! A pipeline is reloaded while records flow, and every one of them arrives exactly once.
//!
//! The API and the receivers are small ones in this process: what a reload is to keep is the cursor and what was written.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use siem_agent_crds::report::AgentIdentity;
use siem_agent_crds::siem_agent::StreamSource;
use siem_agent_edge::clock;
use siem_agent_forwarder::checkpoint::Checkpoint;
use siem_agent_forwarder::delivery::settings::{Settings as Target, Transport};
use siem_agent_forwarder::event::Stream;
use siem_agent_forwarder::map::{Dialect, Format};
use siem_agent_forwarder::pipeline::{Budgets, Pipeline, Shared, State};
use siem_agent_forwarder::plan::{Pace, Plan};
use siem_agent_forwarder::progress::{Identity, Progress};
use siem_agent_forwarder::secret::{Kind, SecretFile};
use siem_agent_forwarder::settings::{Budget, Served, Settings, Sources};
use siem_agent_forwarder::source::http::settings::Auth;
use siem_agent_forwarder::source::{Start, cloud_apps};
use siem_agent_forwarder::store::Store;
use siem_agent_forwarder::syslog::{Framing, Header, Layout, TimeFormat};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const N_RECORDS: usize = 3_000;
/// Several pages a poll, so that a reload comes in the middle of one.
const PAGE: usize = 70;
const N_RELOADS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);
const BUDGET: Budget = Budget { portal: 60_000, hunting: 1 };

/// The activities that the API has, with the times at which they were saved.
type Records = Arc<Mutex<Vec<(String, i64)>>>;
/// How often each id has arrived.
type Arrived = Arc<Mutex<BTreeMap<String, usize>>>;

/// The API: lists in ascending order, page by page.
async fn api(records: Records) -> String {
    let list = move |Json(body): Json<Value>| {
        let records = Arc::clone(&records);
        async move {
            // As slow as an API is, so that a stop finds a page half read.
            sleep(Duration::from_millis(5)).await;
            let records = records.lock().unwrap();
            let filters = &body["filters"];
            let start = match filters["offset"].as_u64() {
                Some(offset) => usize::try_from(offset).unwrap(),
                None => {
                    let from = filters["created"]["gte"].as_i64().unwrap();
                    records.partition_point(|(_, created)| *created < from)
                }
            };
            let end = records.len().min(start + PAGE);
            let data: Vec<Value> = records[start..end]
                .iter()
                .map(|(id, time)| json!({"_id": id, "timestamp": time, "created": time}))
                .collect();
            let has_next = end < records.len();
            Json(json!({"data": data, "hasNext": has_next, "nextQueryFilters": {"offset": end}}))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/api/v1/activities/", post(list));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// A receiver of lines: its port.
async fn receiver(arrived: Arrived) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrived = Arc::clone(&arrived);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let id = line.split("externalId=").nth(1).unwrap().split(' ').next().unwrap();
                    *arrived.lock().unwrap().entry(id.to_owned()).or_default() += 1;
                }
            });
        }
    });
    port
}

fn settings(url: &str, port: u16, token: &Path) -> Settings {
    let layout = Layout {
        header: Header::Legacy,
        time_format: TimeFormat::Rfc5424,
        pri: Some(109),
        host: None,
        framing: Framing::Newline,
        max_message_bytes: 8_000,
    };
    let grace = Duration::from_millis(30);
    let start_from = Duration::from_secs(3_600);
    let pace = Pace {
        poll_interval: Duration::from_millis(50),
        overlap: Duration::from_secs(60),
        start_from,
    };
    let portal = cloud_apps::Settings {
        url: url.to_owned(),
        auth: Auth::Token(SecretFile::new(token.to_owned(), Kind::Token)),
        proxy: None,
        ca_bundle: None,
        streams: vec![(Stream::Activities, Map::new())],
        pace,
    };
    let source = StreamSource::CloudApps;
    Settings {
        plan: Plan {
            format: Format { dialect: Dialect::Legacy, version: "0.1.0".to_owned() },
            layout,
        },
        served: vec![Served { stream: Stream::Activities, source, name: url.to_owned() }],
        sources: Sources { cloud_apps: Some(portal), graph: None, main: url.to_owned() },
        start_from,
        sink: Target { host: "127.0.0.1".to_owned(), port, transport: Transport::Tcp, grace },
        budget: BUDGET,
    }
}

fn shared(url: &str) -> Shared {
    let identity = Identity {
        agent: AgentIdentity::default(),
        pod_uid: None,
        config_hash: String::new(),
        started_at: clock::now(),
        source: url.to_owned(),
    };
    let progress = Progress::new(identity, [(Stream::Activities, StreamSource::CloudApps)]);
    Shared { agent: "test/test".to_owned(), budgets: Budgets::new(BUDGET), progress }
}

#[tokio::test]
async fn a_pipeline_that_is_reloaded_in_mid_traffic_delivers_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "an-api-token-of-usual-length-0123456789").unwrap();
    let (records, arrived) = (Records::default(), Arrived::default());
    let url = api(Arc::clone(&records)).await;
    // Each reload goes to the other one.
    let ports = [receiver(Arc::clone(&arrived)).await, receiver(Arc::clone(&arrived)).await];

    let (store, found) = Store::open(&folder.path().join("state")).unwrap();
    assert!(found.checkpoint.is_none());
    let checkpoint = Checkpoint::new(url.clone()).exporting([Stream::Activities]);
    let an_hour_ago = Start::Anew(clock::millis(clock::now()) - 3_600_000);
    let starts = vec![(Stream::Activities, an_hour_ago)];
    let state = State { checkpoint, starts, store };
    let mut pipeline = Pipeline::start(shared(&url), settings(&url, ports[0], &token), state);

    let producing = tokio::spawn({
        let records = Arc::clone(&records);
        async move {
            for number in 0..N_RECORDS {
                let created = clock::millis(clock::now());
                records.lock().unwrap().push((format!("id-{number}"), created));
                if number % 10 == 9 {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
    });
    for number in 1..=N_RELOADS {
        sleep(Duration::from_millis(150)).await;
        let before = arrived.lock().unwrap().len();
        pipeline = pipeline.reload(settings(&url, ports[number % 2], &token), || {}).await;
        let n_arrived = arrived.lock().unwrap().len();
        assert!(n_arrived < N_RECORDS, "reload {number} came too late: {before}, {n_arrived}");
    }
    producing.await.unwrap();
    let until = Instant::now() + PATIENCE;
    while arrived.lock().unwrap().len() < N_RECORDS {
        let n_arrived = arrived.lock().unwrap().len();
        assert!(Instant::now() < until, "{n_arrived} of {N_RECORDS} have arrived");
        sleep(Duration::from_millis(20)).await;
    }
    let (checkpoint, _store) = pipeline.stop().await;
    let repeated = arrived.lock().unwrap().iter().filter(|(_, count)| **count > 1).count();
    assert_eq!(repeated, 0, "records came again");
    let (_, found) = Store::open(&folder.path().join("state")).unwrap();
    assert_eq!(found.checkpoint, Some(checkpoint), "and saved");
}
