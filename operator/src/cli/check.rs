//! `siem-operator check`: tries each thing that an installation needs, a line each, and says what to do about a failure.
//!
//! `helm test` runs it in a pod as the operator's own ServiceAccount, so that the rights are asked of the account that
//! needs them. It reads, and asks what it may; it never changes anything.

mod rights;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{Api, Client};
use siem_agent_crds::printable::printable;
use tokio::time::{Instant, sleep, timeout};

use super::{Failure, failed, run, variable};
use crate::crd_check;
use crate::error_chain::chain;
use crate::names::MANAGER;

/// One request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is still to come.
const LOOK: Duration = Duration::from_millis(500);
/// The oldest Kubernetes, 1.x, whose API this program was built for.
const OLDEST_MINOR: u32 = 30;
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// A namespace that the operator watches; may be given several times. Default: all
    #[arg(long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// Where the operator's port is, such as `http://siem-agent-operator.siem-system.svc:8080`. Default: it is not asked
    #[arg(long, value_name = "URL")]
    operator_url: Option<String>,
    /// How long the Lease and the operator's port may take to be as they should.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(super) fn run(arguments: CheckArguments) -> ExitCode {
    // Somebody else may have chosen the same already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::world(&error))
        .and_then(|runtime| runtime.block_on(check(arguments)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => failed(&failure),
    }
}

async fn check(arguments: CheckArguments) -> Result<bool, Failure> {
    let CheckArguments { namespaces, operator_url, timeout } = arguments;
    let client =
        run::client(prometheus_client::metrics::family::Family::default(), "check").await?;
    if !server(&client).await? {
        return say(false, "the rest", "not tried, because the API server does not answer");
    }
    let mut all_good = crd(&client).await?;
    let own = variable("POD_NAMESPACE").unwrap_or_else(|| client.default_namespace().to_owned());
    all_good &= may(&client, &namespaces, &own).await?;
    let until = Instant::now() + Duration::from_secs(timeout);
    all_good &= leader(&client, &own, until).await?;
    match operator_url {
        Some(url) => all_good &= operator(url.trim_end_matches('/'), until).await?,
        None => print("note", "operator", "not tried: --operator-url is not set")?,
    }
    Ok(all_good)
}

async fn server(client: &Client) -> Result<bool, Failure> {
    match timeout(PATIENCE, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
            let is_new_enough = digits.parse().is_ok_and(|minor: u32| minor >= OLDEST_MINOR);
            let words = format!("Kubernetes {}", version.git_version);
            if is_new_enough {
                say(true, "API server", &words)
            } else {
                let least = format!("{words}. The least is 1.{OLDEST_MINOR}");
                // It answers, so the rest is asked all the same.
                say(false, "API server", &least).map(|_| true)
            }
        }
        Ok(Err(error)) => say(false, "API server", &chain(&error)),
        Err(_elapsed) => say(false, "API server", "does not answer. Check NetworkPolicies"),
    }
}

async fn crd(client: &Client) -> Result<bool, Failure> {
    match crd_check::missing_fields(client).await {
        Ok(missing) if missing.is_empty() => {
            say(true, "CRD", &format!("knows every field of version {VERSION}"))
        }
        Ok(missing) => {
            let fields = missing.join(", ");
            say(
                false,
                "CRD",
                &format!(
                    "is older than the operator and drops {fields}. Apply the CRD of {VERSION}: crds.enabled, or siem-operator crd"
                ),
            )
        }
        Err(error) => say(
            false,
            "CRD",
            &format!("{}. Install it: crds.enabled, or siem-operator crd", chain(&error)),
        ),
    }
}

async fn may(client: &Client, namespaces: &[String], own: &str) -> Result<bool, Failure> {
    let missing = match rights::missing(client, namespaces, own).await {
        Ok(missing) => missing,
        Err(error) => return say(false, "rights", &chain(&error)),
    };
    let good = if missing.is_empty() {
        let place = match namespaces {
            [] => "in all namespaces".to_owned(),
            some => format!("in {}", some.join(", ")),
        };
        say(true, "rights", &format!("all that the operator needs {place}"))?
    } else {
        let missing = missing.join("; ");
        say(false, "rights", &format!("may not {missing}. Bind the rules of operator/rbac.yaml"))?
    };
    match rights::may_read_secrets(client, namespaces).await {
        Ok(None) => print("ok  ", "Secrets", "the account may not read them")?,
        // Somebody gave it more; the operator works all the same.
        Ok(Some(place)) => print(
            "note",
            "Secrets",
            &format!("the account may read them {place}, which the operator never needs"),
        )?,
        Err(error) => print("note", "Secrets", &chain(&error))?,
    }
    Ok(good)
}

/// A Lease that is renewed while we look; no clock is compared with another's.
async fn leader(client: &Client, own: &str, until: Instant) -> Result<bool, Failure> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), own);
    let mut first: Option<MicroTime> = None;
    let mut trouble = format!("there is no Lease {MANAGER} in {own}");
    loop {
        match timeout(PATIENCE, leases.get_opt(MANAGER)).await {
            Ok(Ok(Some(lease))) => {
                let spec = lease.spec.unwrap_or_default();
                let holder = spec.holder_identity.unwrap_or_default();
                match (&first, spec.renew_time) {
                    (Some(first), Some(renewed)) if *first != renewed && !holder.is_empty() => {
                        return say(true, "leader", &format!("{holder} holds the Lease"));
                    }
                    (None, Some(renewed)) => first = Some(renewed),
                    (_, _) => {}
                }
                trouble = if holder.is_empty() {
                    format!("nobody holds the Lease {MANAGER} in {own}")
                } else {
                    format!("{holder} does not renew the Lease {MANAGER} in {own}")
                };
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => trouble = chain(&error),
            Err(_elapsed) => "the API server does not answer".clone_into(&mut trouble),
        }
        if Instant::now() > until {
            return say(
                false,
                "leader",
                &format!("{trouble}. Look at the operator's pods and log"),
            );
        }
        sleep(LOOK).await;
    }
}

/// Ready, and of this very version: a roll-out is over.
async fn operator(url: &str, until: Instant) -> Result<bool, Failure> {
    // Plain HTTP alone, and the image has no CA roots.
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE);
    let client = client.build().map_err(|error| Failure::world(&error.without_url()))?;
    loop {
        let trouble = match answers(&client, url).await {
            Ok(None) => {
                return say(true, "operator", &format!("version {VERSION} is ready at {url}"));
            }
            Ok(Some(trouble)) => trouble,
            Err(error) => chain(&error.without_url()),
        };
        if Instant::now() > until {
            return say(false, "operator", &format!("{url}: {trouble}. Look at its pods and log"));
        }
        sleep(LOOK).await;
    }
}

/// What is not as it should be.
async fn answers(client: &reqwest::Client, url: &str) -> Result<Option<String>, reqwest::Error> {
    let ready = client.get(format!("{url}/readyz")).send().await?;
    if !ready.status().is_success() {
        let status = ready.status();
        return Ok(Some(format!("/readyz answers {status}: {}", ready.text().await?.trim_end())));
    }
    let metrics = client.get(format!("{url}/metrics")).send().await?.error_for_status()?;
    let metrics = metrics.text().await?;
    let info = metrics.lines().find(|line| line.starts_with("siemagent_operator_build_info{"));
    let own = format!("version=\"{VERSION}\"");
    Ok(match info {
        Some(info) if info.contains(&own) => None,
        Some(info) => Some(format!("{info} is not version {VERSION}")),
        None => Some("/metrics is not an operator's".to_owned()),
    })
}

fn say(good: bool, what: &str, words: &str) -> Result<bool, Failure> {
    print(if good { "ok  " } else { "FAIL" }, what, words).map(|()| good)
}

fn print(mark: &str, what: &str, words: &str) -> Result<(), Failure> {
    let (what, words) = (printable(what), printable(words));
    writeln!(std::io::stdout(), "{mark} {what}: {words}").map_err(|error| Failure::world(&error))
}
