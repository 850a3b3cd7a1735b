//! `cargo demo` as people call it: it ends by itself, and its exit code says whether anything was lost.

use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::forwarder::{PATIENCE, free_port, program};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

async fn demo(arguments: &[&str]) -> Result<(Output, String)> {
    let running = Command::new(program("demo")?)
        .args(["--built", "--standalone", "--for", "3s", "--rate", "20"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(2 * PATIENCE, running).await.context("it ends by itself")??;
    let text = String::from_utf8(output.stdout.clone())?;
    Ok((output, text))
}

#[tokio::test]
async fn the_demo_shows_lines_and_counts_and_ends_with_nothing_lost() -> Result<()> {
    let (output, text) = demo(&[]).await?;
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("CEF:0|MCAS|SIEM_Agent|"), "{text}");
    let last = text.lines().last().context("a summary")?;
    ensure!(last.starts_with("summary: produced ") && last.contains(", lost 0, "), "{last}");
    let counts = text.lines().filter(|line| line.starts_with("produced "));
    ensure!(counts.clone().count() >= 2 && counts.clone().all(|line| line.contains("  lag ")));
    ensure!(!text.contains('\u{1b}'), "plain lines where there is no terminal");
    Ok(())
}

#[tokio::test]
async fn what_does_not_arrive_at_ones_own_receiver_is_lost_and_told() -> Result<()> {
    let (output, text) = demo(&["--to", &format!("tcp://127.0.0.1:{}", free_port()?)]).await?;
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.lines().last().is_some_and(|last| last.contains("delivered 0, lost ")), "{text}");
    Ok(())
}

#[tokio::test]
async fn it_sends_to_ones_own_receiver() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = format!("tcp://{}", listener.local_addr()?);
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut received = Vec::new();
        tokio::io::copy(&mut stream, &mut received).await?;
        anyhow::Ok(String::from_utf8(received)?)
    });
    let (output, text) = demo(&["--to", &to]).await?;
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let received = receiver.await??;
    ensure!(received.lines().count() > 100, "{received}");
    ensure!(received.lines().all(|line| line.starts_with("<109>") && line.contains("CEF:0|MCAS|")));
    Ok(())
}
