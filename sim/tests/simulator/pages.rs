//! The lists: pages, cursors, orders, compression, the server's clock, what comes late.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use reqwest::{Client, header};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};

use super::ask::{ask, client, ids, page, produced, refused, unlimited};

#[tokio::test]
async fn a_scan_drops_the_last_of_each_page_and_its_cursor_brings_them() -> Result<()> {
    let defender = Defender::start(unlimited(12_000)).await?;
    let mut filters = json!({"created": {"gte": 0}});
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let question = json!({
            "filters": filters, "isScan": true, "limit": 9_999, "sortField": "created", "sortDirection": "asc",
        });
        let page = page(&defender, "activities", &question).await;
        sizes.push(ids(&page).len());
        all.extend(ids(&page));
        if page["hasNext"] == false {
            ensure!(page.get("nextQueryFilters").is_none(), "the last page names no next one");
            break;
        }
        filters = page["nextQueryFilters"].clone();
    }
    ensure!(sizes.len() == 3, "{sizes:?}");
    ensure!(sizes.iter().take(2).all(|size| (4_995..5_000).contains(size)), "{sizes:?}");
    ensure!(all.len() == 12_000, "each is listed once: {}", all.len());
    ensure!(all.into_iter().collect::<BTreeSet<_>>() == produced(&defender, Stream::Activities));
    ensure!(defender.shown().len() == 12_000, "what was shown is remembered");
    Ok(())
}

#[tokio::test]
async fn pages_without_scan_hold_a_hundred_and_skip_ends_at_five_thousand() -> Result<()> {
    let defender = Defender::start(unlimited(6_000)).await?;
    let default = page(&defender, "activities", &json!({})).await;
    ensure!(ids(&default).len() == 100 && default["hasNext"] == true && default["total"] == 6_000);
    let most = page(&defender, "activities", &json!({"limit": 5_000})).await;
    ensure!(ids(&most).len() == 100, "more is not given outside of a scan");
    let least = page(&defender, "activities", &json!({"isScan": true, "limit": 5})).await;
    ensure!((495..500).contains(&ids(&least).len()), "a scan gives 500 at least");
    let last = page(&defender, "alerts", &json!({"skip": 100, "limit": 100})).await;
    ensure!(ids(&last).len() == 20 && last["hasNext"] == false && last["max"] == 100);
    page(&defender, "activities", &json!({"skip": 4_900, "limit": 100})).await;
    let (status, body) =
        refused(ask(&defender, "activities", &json!({"skip": 4_901, "limit": 100})).await).await;
    ensure!(status == 400 && body["detail"].is_string(), "{status} {body}");
    Ok(())
}

#[tokio::test]
async fn lists_are_sorted_as_asked_and_equal_times_keep_their_order() -> Result<()> {
    let defender = Defender::start(Options { same_time: 7, ..unlimited(70) }).await?;
    let times = |page: &Value, field: &str| -> Vec<i64> {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record[field].as_i64().unwrap())
            .collect()
    };
    let asc = json!({"sortField": "created", "sortDirection": "asc"});
    let created = times(&page(&defender, "activities", &asc).await, "created");
    ensure!(created.is_sorted());
    ensure!(created.iter().collect::<BTreeSet<_>>().len() == 10, "seven share one time");
    ensure!(
        ids(&page(&defender, "activities", &asc).await)
            == ids(&page(&defender, "activities", &asc).await)
    );
    let desc =
        times(&page(&defender, "activities", &json!({"sortField": "created"})).await, "created");
    ensure!(desc.iter().rev().is_sorted(), "descending unless asked otherwise");
    for (what, question) in [
        ("activities", json!({"sortField": "severity"})),
        ("alerts", json!({"sortField": "created"})),
        ("alerts", json!({"sortDirection": "up"})),
        ("alerts", json!({"limit": "many"})),
    ] {
        ensure!(ask(&defender, what, &question).await.status() == 400, "{question}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_compressed_for_who_takes_it() -> Result<()> {
    let defender = Defender::start(unlimited(100)).await?;
    page(&defender, "activities", &json!({})).await;
    let plain = Client::builder().no_gzip().build()?;
    let request = plain.post(format!("{}/api/v1/activities/", defender.url()));
    let answer = request
        .header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}"))
        .json(&json!({}))
        .send()
        .await?;
    ensure!(answer.headers().get(header::CONTENT_ENCODING).is_none());
    ensure!(answer.json::<Value>().await?["data"].as_array().unwrap().len() == 100);
    let gzip: Vec<_> = defender.requests().iter().map(|request| request.gzip).collect();
    ensure!(gzip == [true, false], "{gzip:?}");
    Ok(())
}

#[tokio::test]
async fn the_servers_clock_may_be_wrong_and_is_the_one_that_counts() -> Result<()> {
    let skew = SignedDuration::from_hours(-5);
    let defender = Defender::start(Options { skew, ..unlimited(0) }).await?;
    defender.produce(1);
    let answer = ask(&defender, "activities", &json!({})).await;
    let date = httpdate::parse_http_date(answer.headers()[header::DATE].to_str()?)?;
    let date = date.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let created = answer.json::<Value>().await?["data"][0]["created"].as_i64().unwrap();
    let now = siem_agent_sim::clock::millis();
    ensure!((now - created - 5 * 3_600_000).abs() < 60_000, "{created} at {now}");
    ensure!((i64::try_from(date)? - created).abs() < 60_000, "{date} and {created}");
    Ok(())
}

#[tokio::test]
async fn late_records_show_up_behind_what_was_listed_before() -> Result<()> {
    let late = Duration::from_secs(2);
    let defender = Defender::start(Options { late, ..unlimited(0) }).await?;
    defender.produce(300);
    let n_shown = ids(&page(&defender, "activities", &json!({"isScan": true})).await).len();
    ensure!(n_shown < 300, "some are late");
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while ids(&page(&defender, "activities", &json!({"isScan": true})).await).len() < 300 {
        ensure!(tokio::time::Instant::now() < until, "and come in the end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn get_asks_in_the_query_and_one_record_has_a_path() -> Result<()> {
    let defender = Defender::start(unlimited(300)).await?;
    let get = async |path: &str| {
        let request = client().get(format!("{}/api/v1/{path}", defender.url()));
        request.header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}")).send().await.unwrap()
    };
    let page: Value = get("activities/?limit=5000&skip=250").await.json().await?;
    ensure!(ids(&page).len() == 50, "the limit of a GET counts for nothing");
    let filtered: Value =
        get("alerts/?filters=%7B%22severity%22%3A%7B%22eq%22%3A%5B9%5D%7D%7D").await.json().await?;
    ensure!(ids(&filtered).is_empty() && filtered["total"] == 0);
    let id = &ids(&page)[0];
    ensure!(get(&format!("activities/{id}/")).await.json::<Value>().await?["_id"] == *id);
    let (status, body) = refused(get("activities/none/").await).await;
    ensure!(status == 404 && body["detail"] == "Not found.");
    Ok(())
}
