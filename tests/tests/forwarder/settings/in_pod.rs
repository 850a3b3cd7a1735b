//! `check --config` and `replay --config`, as in a pod where a forwarder runs by the same configuration: that one delivers
//! each record once all the while, and its files are its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, PATIENCE, free_port};
use siem_agent_tests::program::{Ended, forwarder};
use siem_agent_tests::receiver::{Framing, Receiver};

/// What `check` sends on request begins its id so.
const TEST_EVENT: &str = "siem-forwarder-test-";

/// A portal, a receiver, and a forwarder with the files of a pod.
struct Pod {
    defender: Defender,
    receiver: Receiver,
    forwarder: Forwarder,
}

impl Pod {
    /// Starts all three, with so many new activities a second beside 200 activities and 60 alerts from before.
    async fn start(rate: f64) -> Result<Self> {
        let defender = Defender::start(Options {
            rate,
            budget: 0,
            history: (200, Duration::from_secs(3600)),
            alert_history: Some(60),
            ..Options::default()
        })
        .await?;
        let receiver = Receiver::start(Framing::Newline, None).await?;
        let syslog = format!("{{host: 127.0.0.1, port: {}}}", receiver.port());
        let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
        forwarder.run_by_config("u-1")?;
        let pod = Self { defender, receiver, forwarder };
        // Whatever listens where the configuration says meets the forwarder there.
        let address = pod.forwarder.address();
        pod.configure(|config| config["listen"] = address.into())?;
        let mut pod = pod;
        pod.forwarder.start().await?;
        Ok(pod)
    }

    fn config(&self) -> PathBuf {
        self.forwarder.folder().join("config.json")
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut config = serde_json::from_str(&fs::read_to_string(self.config())?)?;
        change(&mut config);
        Ok(fs::write(self.config(), config.to_string())?)
    }

    async fn command(&self, command: &[&str], more: &[&str]) -> Result<Ended> {
        let config = self.config().display().to_string();
        forwarder(&[command, &["--config", &config], more].concat(), "").await
    }

    /// Waits until more records than these are at the receiver.
    async fn until_arrived(&self, n_records: usize) -> Result<()> {
        eventually(PATIENCE, async || {
            let n_arrived = self.receiver.ids().len();
            ensure!(n_arrived > n_records, "{n_arrived}: {}", self.forwarder.log()?);
            Ok(())
        })
        .await
    }

    /// Waits until all that the portal has made is at the receiver; gives how often each id came.
    async fn all_arrived(&self) -> Result<BTreeMap<String, usize>> {
        eventually(PATIENCE, async || {
            let (produced, arrived) = (self.defender.produced(), self.receiver.ids());
            let missing = produced.iter().find(|(_, id)| !arrived.contains_key(id));
            ensure!(missing.is_none(), "{missing:?} is missing: {}", self.forwarder.log()?);
            Ok(arrived)
        })
        .await
    }

    /// Does this while the forwarder's process is halted with its lock, its port and its connection; gives what came of it,
    /// and whether a file of its folders is another than before.
    async fn while_halted<T>(&self, what: impl AsyncFnOnce() -> Result<T>) -> Result<(T, bool)> {
        let number = self.forwarder.pid().context("it runs")?;
        let pid = Pid::from_raw(i32::try_from(number)?);
        kill(pid, Signal::SIGSTOP)?;
        eventually(PATIENCE, async || is_halted(number)).await?;
        let before = files(self.forwarder.folder())?;
        ensure!(before.keys().any(|path| path.starts_with(self.forwarder.state())), "its state");
        let done = what().await;
        let after = files(self.forwarder.folder())?;
        kill(pid, Signal::SIGCONT)?;
        Ok((done?, before != after))
    }

    /// It runs, and complained of nothing.
    async fn is_undisturbed(&mut self) -> Result<()> {
        ensure!(self.forwarder.ended()?.is_none(), "it has ended: {}", self.forwarder.log()?);
        self.forwarder.get("readyz").await?;
        let log = self.forwarder.log()?;
        ensure!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
        Ok(())
    }
}

/// Every thread of it has stopped: one may have been in the middle of a write.
fn is_halted(pid: u32) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        ensure!(status.lines().any(|line| line.starts_with("State:\tT")), "{status}");
    }
    Ok(())
}

type Files = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

/// Every file below a folder, with what is in it and when it was last written.
fn files(folder: &Path) -> Result<Files> {
    let mut found = Files::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            let written = fs::metadata(&path)?.modified()?;
            found.insert(path.clone(), (fs::read(&path)?, written));
        }
    }
    Ok(found)
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

#[tokio::test]
async fn a_check_beside_a_running_forwarder_disturbs_nothing() -> Result<()> {
    let mut pod = Pod::start(50.0).await?;
    let mut test_events = Vec::new();
    for _ in 0..3 {
        let ended = pod.command(&["check"], &["--send-test-event"]).await?;
        ensure!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
        for line in [
            "ok   config: is valid; the agent is security/soc",
            "ok   API, alerts: the token may read it",
            "ok   API, activities: the token may read it",
            "ok   SIEM, 127.0.0.1 port",
            "ok   test event: siem-forwarder-test-",
        ] {
            ensure!(ended.out.lines().any(|it| it.starts_with(line)), "{line}: {}", ended.out);
        }
        ensure!(!ended.out.contains(DEMO_TOKEN), "{}", ended.out);
        let id = ended.out.split_whitespace().find(|word| word.starts_with(TEST_EVENT));
        test_events.push(id.context("its id")?.to_owned());
    }
    // Halted it makes no request and writes no file, so that all there is comes from `check`.
    let (ended, is_changed) = pod.while_halted(async || pod.command(&["check"], &[]).await).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(!is_changed, "its files are left alone");

    pod.until_arrived(pod.defender.produced().len()).await?;
    pod.defender.quiet();
    let arrived = pod.all_arrived().await?;
    ensure!(arrived.values().all(|count| *count == 1), "nothing twice: {arrived:?}");
    ensure!(test_events.iter().all(|id| arrived.contains_key(id)), "{test_events:?}");
    let expected = pod.defender.produced().len() + test_events.len();
    ensure!(arrived.len() == expected, "{} of {expected}", arrived.len());
    pod.is_undisturbed().await
}

#[tokio::test]
async fn a_replay_beside_a_running_forwarder_repeats_its_window_and_nothing_else() -> Result<()> {
    let mut pod = Pod::start(50.0).await?;
    pod.until_arrived(260).await?;
    let activities: Vec<Value> = pod
        .defender
        .records(Stream::Activities)
        .iter()
        .map(|json| serde_json::from_str(json))
        .collect::<Result<_, _>>()?;
    let window = activities.get(50..150).context("a hundred activities")?;
    let listed = |record: Option<&Value>| record.and_then(|it| it["created"].as_i64());
    let from = time(listed(window.first()).context("its first")?);
    let to = time(listed(window.last()).context("its last")?);
    let replay = ["replay", "--from", &from, "--to", &to, "--stream", "activities"];
    let said = "activities: 100 records delivered, 0 cannot be mapped";
    let ended = pod.command(&replay, &[]).await?;
    ensure!(ended.code == Some(0) && ended.out.trim() == said, "{ended:?}");
    // Halted it writes no file, so that whatever changed would be by `replay`.
    let (ended, is_changed) = pod.while_halted(async || pod.command(&replay, &[]).await).await?;
    ensure!(ended.code == Some(0) && ended.out.trim() == said, "{ended:?}");
    ensure!(!is_changed, "its files are left alone");

    pod.until_arrived(pod.defender.produced().len()).await?;
    pod.defender.quiet();
    let arrived = pod.all_arrived().await?;
    let of_window: Vec<&str> = window.iter().filter_map(|record| record["_id"].as_str()).collect();
    for (id, count) in &arrived {
        let expected = if of_window.contains(&id.as_str()) { 3 } else { 1 };
        ensure!(*count == expected, "{id}: {count}, not {expected}");
    }
    ensure!(arrived.len() == pod.defender.produced().len(), "and no other record");
    pod.is_undisturbed().await
}

/// Outside a cluster a missing file ends the command; in a pod it is the finding.
#[tokio::test]
async fn a_check_in_a_pod_says_what_the_pod_lacks_and_goes_past_a_suspension() -> Result<()> {
    let mut pod = Pod::start(0.0).await?;
    pod.all_arrived().await?;
    ensure!(pod.forwarder.terminate().await?.success());
    pod.configure(|config| config["suspend"] = true.into())?;
    let ended = pod.command(&["check"], &[]).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(ended.out.contains("\nWARN suspend: is true, so nothing is exported"), "{ended:?}");
    ensure!(ended.out.contains("\nok   API, activities: "), "{ended:?}");
    let now = siem_agent_sim::clock::millis();
    let (from, to) = (time(now - 7_200_000), time(now));
    let ended = pod.command(&["replay", "--from", &from, "--to", &to], &[]).await?;
    ensure!(ended.code == Some(0) && ended.err.contains("the agent is suspended"), "{ended:?}");
    ensure!(ended.out.contains("alerts: 60 records delivered"), "{ended:?}");

    fs::remove_file(pod.forwarder.secrets().join("defender/token"))?;
    let ended = pod.command(&["check"], &[]).await?;
    ensure!(ended.code == Some(1) && ended.err.is_empty(), "{ended:?}");
    ensure!(ended.out.contains("\nFAIL API, alerts: "), "{ended:?}");
    ensure!(ended.out.contains("\nok   SIEM, 127.0.0.1 port "), "{ended:?}");
    pod.forwarder.set_token(DEMO_TOKEN)?;
    let port = free_port()?;
    pod.configure(|config| config["syslog"]["port"] = port.into())?;
    let ended = pod.command(&["check"], &[]).await?;
    ensure!(ended.code == Some(1), "{ended:?}");
    ensure!(ended.out.contains("\nok   API, alerts: "), "{ended:?}");
    ensure!(ended.out.contains("\nFAIL TCP, SIEM, 127.0.0.1 port "), "{ended:?}");
    Ok(())
}
