//! How these tests ask the simulator.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, Response, header};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};

pub(crate) fn client() -> Client {
    // Another test of this process may have done so already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().retry(reqwest::retry::never()).build().unwrap()
}

pub(crate) fn unlimited(n_history: usize) -> Options {
    Options {
        budget: 0,
        graph_budget: 0,
        hunting_budget: 0,
        history: (n_history, Duration::from_secs(3600)),
        ..Options::default()
    }
}

pub(crate) async fn ask(defender: &Defender, what: &str, question: &Value) -> Response {
    ask_as(defender, what, question, &format!("Token {DEMO_TOKEN}")).await
}

pub(crate) async fn ask_as(
    defender: &Defender,
    what: &str,
    question: &Value,
    who: &str,
) -> Response {
    let request = client().post(format!("{}/api/v1/{what}/", defender.url()));
    request.header(header::AUTHORIZATION, who).json(question).send().await.unwrap()
}

pub(crate) async fn page(defender: &Defender, what: &str, question: &Value) -> Value {
    let answer = ask(defender, what, question).await;
    assert_eq!(answer.status(), 200, "{question}");
    answer.json().await.unwrap()
}

pub(crate) async fn refused(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub(crate) fn ids(page: &Value) -> Vec<String> {
    let records = page["data"].as_array().unwrap();
    records.iter().map(|record| record["_id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn produced(defender: &Defender, stream: Stream) -> BTreeSet<String> {
    let ids = defender.produced().into_iter();
    ids.filter(|(of, _)| *of == stream).map(|(_, id)| id).collect()
}
