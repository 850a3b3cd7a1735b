//! The simulated portal as a program, for trying things out by hand.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use siem_agent_tests::defender::{DEMO_TOKEN, Defender, Fault, Options};

/// Simulates the API of Microsoft Defender for Cloud Apps on loopback.
#[derive(Debug, Parser)]
#[command(name = "defender-sim", version)]
struct Cli {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Seed of the records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Activities a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Activities of the last two days.
    #[arg(long, default_value_t = 1_000)]
    history: usize,
    /// Every tenth activity becomes visible up to so many seconds late.
    #[arg(long, default_value_t = 0)]
    late: u64,
    /// Requests a minute; 0 for no limit.
    #[arg(long, default_value_t = 30)]
    budget: usize,
    /// The accepted token.
    #[arg(long, default_value = DEMO_TOKEN)]
    token: String,
    /// A fault for the next requests: `429[:SECONDS]`, 500, hang:SECONDS, cut:BYTES, broken, html, `401[:TEXT]`; xN repeats.
    #[arg(long)]
    fault: Vec<Fault>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { listen, seed, rate, history, late, budget, token, fault } = Cli::parse();
    anyhow::ensure!(listen.ip().is_loopback(), "--listen must be a loopback address");
    let history = (history, Duration::from_secs(48 * 3600));
    let options =
        Options { listen, seed, rate, history, late: Duration::from_secs(late), budget, token };
    let defender = Defender::start(options).await?;
    for fault in fault {
        defender.fault(fault);
    }
    writeln!(std::io::stdout(), "{}", defender.url())?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
