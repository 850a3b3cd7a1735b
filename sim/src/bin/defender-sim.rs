//! The simulated portal as a program, for trying things out by hand and for tests of other processes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use jiff::SignedDuration;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, Hostility, Options, RetryAfter};
use siem_agent_sim::pki::Authority;
use tokio::signal::unix::{SignalKind, signal};

/// Simulates the API of Microsoft Defender for Cloud Apps, and Microsoft Graph for the same tenant, on loopback. GET /_sim/
/// lists how to ask and change it.
#[derive(Debug, Parser)]
#[command(name = "defender-sim", version)]
struct Cli {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Speaks TLS; writes the certificate of the authority to trust to DIR/ca.crt.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Seed of the records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Activities a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Alerts a second. Default: a fiftieth of the activities
    #[arg(long)]
    alert_rate: Option<f64>,
    /// Activities of the last two days.
    #[arg(long, default_value_t = 1_000)]
    history: usize,
    /// Alerts of the last two days. Default: a fiftieth of the activities
    #[arg(long)]
    alert_history: Option<usize>,
    /// Every tenth record becomes visible up to so many seconds late.
    #[arg(long, default_value_t = 0)]
    late: u64,
    /// So many records share one time.
    #[arg(long, default_value_t = 1)]
    same_time: usize,
    /// The server's clock is so many seconds ahead, or behind with a minus.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    skew: i64,
    /// How much the records try to do harm.
    #[arg(long, value_enum, default_value_t)]
    hostile: Hostility,
    /// Requests a minute; 0 for no limit.
    #[arg(long, default_value_t = 30)]
    budget: usize,
    /// The Retry-After of a request that is one too many.
    #[arg(long, value_enum, default_value_t)]
    retry_after: RetryAfter,
    /// Requests a minute for alerts of Microsoft Graph; 0 for no limit.
    #[arg(long, default_value_t = 150)]
    graph_budget: usize,
    /// Hunting queries a minute; 0 for no limit.
    #[arg(long, default_value_t = 45)]
    hunting_budget: usize,
    /// How many bytes the result of a hunting query may have.
    #[arg(long, default_value_t = 50_000_000)]
    result_limit: usize,
    /// So many bytes more, about, in the RawEventData of each hunting row.
    #[arg(long, default_value_t = 0)]
    raw_event_bytes: usize,
    /// A few hunting rows show up so many seconds later, at most, than rows that are ingested after them.
    #[arg(long, default_value_t = 0)]
    out_of_order: u64,
    /// Accepts assertions of this issuer in place of the client secret.
    #[arg(long, value_name = "ISSUER", requires_all = ["trust_jwks", "trust_subject"])]
    trust_issuer: Option<String>,
    /// The file with the JWK set of the issuer.
    #[arg(long, value_name = "FILE", requires = "trust_issuer")]
    trust_jwks: Option<PathBuf>,
    /// The subject of the assertions.
    #[arg(long, value_name = "SUBJECT", requires = "trust_issuer")]
    trust_subject: Option<String>,
    /// The audience of the assertions.
    #[arg(long, value_name = "AUDIENCE", default_value = "api://AzureADTokenExchange")]
    trust_audience: String,
    /// The accepted token, which is the client secret as well.
    #[arg(long, default_value = DEMO_TOKEN)]
    token: String,
    /// How many seconds an access token lives.
    #[arg(long, default_value_t = 3599)]
    access_life: u64,
    /// `KIND[:ARGUMENT][xCOUNT][@CONDITION,…]`. Kinds: 429, 429:SECONDS, 429:date+SECONDS, 429-in-words:SECONDS, 500
    /// and other statuses, refusal:STATUS:BODY, hang:SECONDS, cut:BYTES, short:BYTES, broken, html, type:CONTENT-TYPE,
    /// empty, mark, more, 401:TEXT, 403:TEXT, jwks, grant:JSON, 504-html, too-large. COUNT is a number or *. Conditions:
    /// stream=alerts|activities|graph-alerts|graph-hunting|token, page=first|continued, after=N, p=0.1. May be given several times.
    #[arg(long)]
    fault: Vec<Fault>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Cli {
        listen,
        tls_dir,
        seed,
        rate,
        alert_rate,
        history,
        alert_history,
        late,
        same_time,
        skew,
        hostile,
        budget,
        retry_after,
        graph_budget,
        hunting_budget,
        result_limit,
        raw_event_bytes,
        out_of_order,
        trust_issuer,
        trust_jwks,
        trust_subject,
        trust_audience,
        token,
        access_life,
        fault,
    } = Cli::parse();
    let tls = match tls_dir {
        None => None,
        Some(folder) => {
            let authority = Authority::new("defender-sim")?;
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join("ca.crt"), authority.certificate()))
                .with_context(|| format!("write ca.crt into {} (--tls-dir)", folder.display()))?;
            Some(authority.loopback_server()?)
        }
    };
    let options = Options {
        listen,
        seed,
        rate,
        alert_rate,
        history: (history, Duration::from_secs(48 * 3600)),
        alert_history,
        late: Duration::from_secs(late),
        same_time,
        skew: SignedDuration::from_secs(skew),
        hostile,
        budget,
        retry_after,
        graph_budget,
        hunting_budget,
        result_limit,
        raw_event_bytes,
        out_of_order: Duration::from_secs(out_of_order),
        token,
        access_life: Duration::from_secs(access_life),
        tls,
    };
    let defender = Defender::start(options).await?;
    if let (Some(issuer), Some(jwks), Some(subject)) = (trust_issuer, trust_jwks, trust_subject) {
        let keys = std::fs::read_to_string(&jwks)
            .with_context(|| format!("read the JWK set {} (--trust-jwks)", jwks.display()))?;
        defender.trust(&issuer, &keys, &subject, &trust_audience)?;
    }
    for fault in fault {
        defender.fault(fault);
    }
    // At once: who wants the first line alone may close the pipe behind it.
    let url = defender.url();
    let text = format!("{url}\nMicrosoft Graph: {url}/v1.0\n");
    std::io::stdout().write_all(text.as_bytes())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
