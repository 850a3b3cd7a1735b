//! `/_sim/`: what a test of another process, or a person with curl, wants to know of the simulator or do to it.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

use super::answer::Answer;
use super::assertion::Trust;
use super::fault::Fault;
use super::tenant::{Shared, Tenant, lock};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/produced", get(produced))
        .route("/shown", get(shown))
        .route("/requests", get(requests))
        .route("/access-tokens", get(access_tokens).delete(revoke))
        .route("/token", post(set_token))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/forbidden/{stream}", post(forbid).delete(permit))
        .route("/records/{stream}", post(inject))
        .route("/produce/{stream}", post(produce))
        .route("/trust", post(trust))
        .route("/cpu-quota", post(spend_cpu).delete(spare_cpu))
        .route("/rate", post(set_rate))
        .route("/skew", post(set_skew))
}

const HELP: &str = "GET /_sim/produced, /_sim/shown: ids\n\
    GET /_sim/requests: what was asked and answered\n\
    GET /_sim/access-tokens: how many were issued; DELETE revokes them\n\
    POST /_sim/token: the token, or client secret, that is good from now on\n\
    GET, POST, DELETE /_sim/faults: such as `429:5x3@stream=alerts,page=continued` or `504-html@stream=graph-hunting`\n\
    POST, DELETE /_sim/forbidden/alerts: 403 at the portal and at Graph, or no longer\n\
    POST, DELETE /_sim/cpu-quota: hunting has used up its share of CPU, or no longer\n\
    POST /_sim/trust: {\"issuer\", \"subject\", \"audience\", \"jwks\"} whose assertions are good for a token\n\
    POST /_sim/records/activities: a record's JSON, listed now\n\
    POST /_sim/produce/alerts: make so many now\n\
    POST /_sim/rate: activities a second\n\
    POST /_sim/skew: seconds that the server's clock is ahead\n";

pub(super) async fn help(State(tenant): State<Shared>) -> Response {
    say(&lock(&tenant), Answer::text(StatusCode::OK, "text/plain", HELP.to_owned()))
}

async fn produced(State(tenant): State<Shared>) -> Response {
    let tenant = lock(&tenant);
    let ids = tenant.produced();
    done(&tenant, &ids.iter().map(|(stream, id)| json!({"stream": stream, "id": id})).collect())
}

async fn shown(State(tenant): State<Shared>) -> Response {
    let tenant = lock(&tenant);
    let ids = tenant.shown.iter();
    done(&tenant, &ids.map(|(stream, id)| json!({"stream": stream, "id": id})).collect())
}

async fn requests(State(tenant): State<Shared>) -> Response {
    let tenant = lock(&tenant);
    done(&tenant, &json!(tenant.requests))
}

async fn access_tokens(State(tenant): State<Shared>) -> Response {
    let tenant = lock(&tenant);
    done(&tenant, &json!({"issued": tenant.issued.len()}))
}

async fn revoke(State(tenant): State<Shared>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.access.clear();
    done(&tenant, &json!({}))
}

async fn set_token(State(tenant): State<Shared>, token: String) -> Response {
    let mut tenant = lock(&tenant);
    token.trim().clone_into(&mut tenant.token);
    done(&tenant, &json!({}))
}

async fn faults(State(tenant): State<Shared>) -> Response {
    let tenant = lock(&tenant);
    done(&tenant, &tenant.faults.iter().map(|fault| json!(format!("{fault:?}"))).collect())
}

async fn add_fault(State(tenant): State<Shared>, text: String) -> Response {
    let mut tenant = lock(&tenant);
    match text.trim().parse::<Fault>() {
        Ok(fault) => {
            tenant.faults.push(fault);
            done(&tenant, &json!({}))
        }
        Err(wrong) => refuse(&tenant, &wrong),
    }
}

async fn clear_faults(State(tenant): State<Shared>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.faults.clear();
    done(&tenant, &json!({}))
}

async fn forbid(State(tenant): State<Shared>, Path(stream): Path<Stream>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.forbidden.insert(stream);
    done(&tenant, &json!({}))
}

async fn permit(State(tenant): State<Shared>, Path(stream): Path<Stream>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.forbidden.remove(&stream);
    done(&tenant, &json!({}))
}

async fn inject(
    State(tenant): State<Shared>,
    Path(stream): Path<Stream>,
    json: String,
) -> Response {
    let mut tenant = lock(&tenant);
    let now = tenant.now();
    tenant.inject(stream, &json, now);
    done(&tenant, &json!({}))
}

async fn produce(
    State(tenant): State<Shared>,
    Path(stream): Path<Stream>,
    number: String,
) -> Response {
    let mut tenant = lock(&tenant);
    match number.trim().parse::<usize>() {
        Ok(n_records) => {
            tenant.make(stream, n_records, std::time::Duration::ZERO);
            done(&tenant, &json!({}))
        }
        Err(_digits) => refuse(&tenant, "the body must be a number of records"),
    }
}

async fn trust(State(tenant): State<Shared>, body: String) -> Response {
    let mut tenant = lock(&tenant);
    match Trust::read(&body) {
        Ok(trust) => {
            tenant.trust.push(trust);
            done(&tenant, &json!({}))
        }
        Err(wrong) => refuse(&tenant, &format!("{wrong:#}")),
    }
}

async fn spend_cpu(State(tenant): State<Shared>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.cpu_spent = true;
    done(&tenant, &json!({}))
}

async fn spare_cpu(State(tenant): State<Shared>) -> Response {
    let mut tenant = lock(&tenant);
    tenant.cpu_spent = false;
    done(&tenant, &json!({}))
}

async fn set_rate(State(tenant): State<Shared>, rate: String) -> Response {
    let mut tenant = lock(&tenant);
    match rate.trim().parse::<f64>() {
        Ok(rate) if (0.0..=100_000.0).contains(&rate) => {
            tenant.options.rate = rate;
            done(&tenant, &json!({}))
        }
        Ok(_) | Err(_) => refuse(&tenant, "the body must be a number of activities a second"),
    }
}

async fn set_skew(State(tenant): State<Shared>, seconds: String) -> Response {
    let mut tenant = lock(&tenant);
    match seconds.trim().parse::<i64>() {
        Ok(seconds) => {
            tenant.options.skew = jiff::SignedDuration::from_secs(seconds);
            done(&tenant, &json!({}))
        }
        Err(_digits) => refuse(&tenant, "the body must be a number of seconds"),
    }
}

fn done(tenant: &Tenant, body: &Value) -> Response {
    say(tenant, Answer::json(StatusCode::OK, body))
}

fn refuse(tenant: &Tenant, words: &str) -> Response {
    say(tenant, Answer::detail(StatusCode::BAD_REQUEST, words))
}

fn say(tenant: &Tenant, answer: Answer) -> Response {
    answer.respond(tenant.now(), false)
}
