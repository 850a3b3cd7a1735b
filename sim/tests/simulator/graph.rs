//! Microsoft Graph for the simulated tenant: how these tests ask it, and what the portal and Graph have in common.

mod alerts;
mod hunting;
mod refusals;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use reqwest::{Response, header};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Hostility, Options};

use super::ask::{client, page, produced, unlimited};

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const OURS: &str = "serviceSource in ('microsoftDefenderForCloudApps','microsoftAppGovernance')";

/// An `Authorization` for what a scope stands for.
async fn bearer(defender: &Defender, scope: &str) -> String {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", DEMO_TOKEN),
        ("scope", scope),
    ];
    let url = format!("{}/contoso.example/oauth2/v2.0/token", defender.url());
    let granted = client().post(url).form(&form).send().await.unwrap();
    let granted: Value = granted.json().await.unwrap();
    format!("Bearer {}", granted["access_token"].as_str().unwrap())
}

/// Asks Graph at one simulator.
struct Graph<'a> {
    defender: &'a Defender,
    bearer: String,
}

impl<'a> Graph<'a> {
    async fn at(defender: &'a Defender) -> Self {
        let bearer = bearer(defender, &format!("{}/.default", defender.url())).await;
        Self { defender, bearer }
    }

    async fn get(&self, url: &str) -> Response {
        let request = client().get(url).header(header::AUTHORIZATION, &self.bearer);
        request.header("Prefer", "include-unknown-enum-members").send().await.unwrap()
    }

    async fn alerts(&self, options: &[(&str, &str)]) -> Response {
        let options =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(options).finish();
        self.get(&format!("{}/v1.0/security/alerts_v2?{options}", self.defender.url())).await
    }

    async fn page(&self, options: &[(&str, &str)]) -> Value {
        let answer = self.alerts(options).await;
        assert_eq!(answer.status(), 200, "{options:?}");
        answer.json().await.unwrap()
    }

    async fn ask(&self, body: &Value) -> Response {
        let url = format!("{}/v1.0/security/runHuntingQuery", self.defender.url());
        let request = client().post(url).header(header::AUTHORIZATION, &self.bearer);
        request.json(body).send().await.unwrap()
    }

    async fn hunt(&self, query: &str) -> Value {
        let answer = self.ask(&json!({"Query": query})).await;
        assert_eq!(answer.status(), 200, "{query}");
        answer.json().await.unwrap()
    }
}

fn rows(result: &Value) -> &[Value] {
    result["results"].as_array().unwrap()
}

fn texts(list: &[Value], field: &str) -> Vec<String> {
    list.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Status, code and message of a refusal; it has all that Graph's have.
async fn refused(answer: Response) -> (u16, String, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let error = &body["error"];
    for name in ["date", "request-id", "client-request-id"] {
        assert!(error["innerError"][name].is_string(), "{body}");
    }
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

#[tokio::test]
async fn the_portal_and_graph_have_the_same_records() -> Result<()> {
    for hostile in [Hostility::Strings, Hostility::Records] {
        let options = Options { hostile, alert_history: Some(150), ..unlimited(400) };
        let defender = Defender::start(options).await?;
        let graph = Graph::at(&defender).await;
        let alerts = graph.alerts(&[("$filter", OURS), ("$top", "1000")]).await;
        // A lone surrogate is nothing that a decoder of Unicode takes.
        let alerts = alerts.text().await?.replace("\\ud800", "");
        let alerts: Value = serde_json::from_str(&alerts)?;
        let alerts = alerts["value"].as_array().unwrap();
        let ids: BTreeSet<_> =
            texts(alerts, "id").into_iter().filter(|id| !id.is_empty()).collect();
        let expected: BTreeSet<_> = produced(&defender, Stream::Alerts);
        ensure!(ids == expected.iter().map(|id| format!("ca{id}")).collect(), "every alert");
        ensure!(
            alerts.iter().all(|alert| {
                let id = alert["id"].as_str().and_then(|id| id.strip_prefix("ca"));
                alert["providerAlertId"].as_str() == id
            }),
            "the provider's id is the portal's"
        );
        let mut ids = BTreeSet::new();
        for table in
            ["CloudAppEvents", "IdentityLogonEvents | where Application != 'Active Directory'"]
        {
            let result = graph.ask(&json!({"Query": table})).await.text().await?;
            let result: Value = serde_json::from_str(&result.replace("\\ud800", ""))?;
            let of_table = texts(rows(&result), "ReportId").into_iter();
            ids.extend(of_table.filter(|id| !id.is_empty()));
        }
        ensure!(ids == produced(&defender, Stream::Activities), "every activity");
        ensure!(defender.shown() == defender.produced(), "and they count as shown");
        for (stream, field) in
            [(Stream::Alerts, "providerAlertId"), (Stream::Activities, "ReportId")]
        {
            let records = defender.graph_records(stream).join("\n").replace("\\ud800", "");
            let records: Vec<Value> =
                records.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
            let ids = texts(&records, field).into_iter().filter(|id| !id.is_empty());
            ensure!(ids.collect::<BTreeSet<_>>() == produced(&defender, stream), "{field}");
        }
        let asked: Vec<_> = defender.requests().iter().map(|request| request.what).collect();
        ensure!(asked == ["token", "graph-alerts", "graph-hunting", "graph-hunting"], "{asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_record_is_the_same_event_at_both() -> Result<()> {
    let defender = Defender::start(Options { hostile: Hostility::None, ..unlimited(100) }).await?;
    let graph = Graph::at(&defender).await;
    let portal = page(&defender, "activities", &json!({})).await;
    for table in ["CloudAppEvents", "IdentityLogonEvents"] {
        for row in rows(&graph.hunt(table).await) {
            let id = &row["ReportId"];
            let mut records = portal["data"].as_array().unwrap().iter();
            let Some(record) = records.find(|record| record["_id"] == *id) else {
                ensure!(row["Application"] == "Active Directory", "{row}");
                continue;
            };
            let happened = row["Timestamp"].as_str().unwrap().parse::<jiff::Timestamp>()?;
            let of_portal = &record["timestamp"];
            let of_portal =
                of_portal.as_i64().or_else(|| of_portal.as_str()?.parse().ok()).unwrap();
            ensure!(happened.as_nanosecond().div_euclid(1_000_000) == i128::from(of_portal));
            if let Some(address) = row["IPAddress"].as_str() {
                ensure!(record["device"]["clientIP"] == address);
            }
        }
    }
    let portal = page(&defender, "alerts", &json!({})).await;
    let alerts = graph.page(&[("$filter", OURS)]).await;
    for alert in alerts["value"].as_array().unwrap() {
        let id = &alert["providerAlertId"];
        let mut records = portal["data"].as_array().unwrap().iter();
        let record = records.find(|record| record["_id"] == *id).unwrap();
        ensure!(alert["title"] == record["title"]);
        let created = alert["createdDateTime"].as_str().unwrap().parse::<jiff::Timestamp>()?;
        let created = i64::try_from(created.as_nanosecond().div_euclid(1_000_000))?;
        ensure!(record["timestamp"] == created, "not another millisecond: {alert}");
    }
    Ok(())
}
