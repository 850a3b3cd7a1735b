//! `run` with the vendor's arguments, `render`, `replay`: each for real.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, PATIENCE, program};
use siem_agent_tests::program::forwarder;
use siem_agent_tests::receiver::{Framing, Receiver};

/// A child that does not outlive the test.
struct Leashed(Child);

impl Drop for Leashed {
    fn drop(&mut self) {
        // What has ended already cannot be ended again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    defender: Defender,
    receiver: Receiver,
    forwarder: Forwarder,
}

/// A simulator, a receiver, and the files of a forwarder that is not running.
async fn place(token: &str) -> Result<Place> {
    let history = (200, Duration::from_secs(3600));
    let defender = Defender::start(Options {
        budget: 0,
        history,
        alert_history: Some(60),
        ..Options::default()
    })
    .await?;
    let receiver = Receiver::start(Framing::Newline, None).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", receiver.port());
    let forwarder = Forwarder::new(&defender.url(), token, &syslog, "")?;
    Ok(Place { defender, receiver, forwarder })
}

async fn until(what: &str, mut good: impl FnMut() -> bool) -> Result<()> {
    eventually(PATIENCE, async || {
        ensure!(good(), "{what}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_token_on_the_command_line_is_gone_from_it_at_once() -> Result<()> {
    for form in [vec!["--token", DEMO_TOKEN], vec![&*format!("--token={DEMO_TOKEN}")]] {
        let place = place("not this one").await?;
        let folder = place.forwarder.folder();
        let log = fs::File::create(folder.join("errors"))?;
        let child = Command::new(program("siem-forwarder")?)
            .arg("run")
            .args(&form)
            .arg("--manifest")
            .arg(place.forwarder.manifest())
            .arg("--secrets")
            .arg(place.forwarder.secrets())
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        let child = Leashed(child);
        until("it delivers with this token", || place.receiver.ids().len() == 260).await?;
        let pid = child.0.id();
        for file in ["cmdline", "environ"] {
            let shown = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            ensure!(!shown.contains(DEMO_TOKEN), "{file}: {shown}");
        }
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        ensure!(arguments.contains("--token-file\0/proc/self/fd/"), "{arguments}");
        ensure!(
            arguments.contains("--manifest\0") && arguments.contains("--listen\0"),
            "{arguments}"
        );
        let errors = fs::read_to_string(folder.join("errors"))?;
        ensure!(errors.contains("warning: --token shows the token to everyone"), "{errors}");
        ensure!(
            errors.contains("--token-file instead of spec.source.auth"),
            "a flag wins, and is told: {errors}"
        );
        ensure!(!errors.contains(DEMO_TOKEN), "{errors}");
    }
    Ok(())
}

#[tokio::test]
async fn logs_are_written_into_the_folder_under_either_name_of_the_flag() -> Result<()> {
    for flag in ["--logs-directory", "--logsDirectory"] {
        let place = place(DEMO_TOKEN).await?;
        let folder = place.forwarder.folder();
        let logs = folder.join("logs");
        let child = Command::new(program("siem-forwarder")?)
            .arg("run")
            .arg("--manifest")
            .arg(place.forwarder.manifest())
            .arg("--secrets")
            .arg(place.forwarder.secrets())
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", flag])
            .arg(&logs)
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("errors"))?)
            .spawn()?;
        let child = Leashed(child);
        until("it delivers", || place.receiver.ids().len() == 260).await?;
        drop(child);
        let files: Vec<_> = fs::read_dir(&logs)?.map(|entry| entry.unwrap().path()).collect();
        ensure!(files.len() == 1, "{files:?}");
        let name = files[0].file_name().unwrap().to_str().unwrap();
        ensure!(name.starts_with("siem-forwarder.") && name.contains(".log"), "{name}");
        ensure!(fs::read_to_string(&files[0])?.contains("started"), "{name}");
        let errors = fs::read_to_string(folder.join("errors"))?;
        let lines: Vec<Value> =
            errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        ensure!(lines.iter().any(|line| line["message"] == "started"), "{errors}");
    }
    Ok(())
}

#[tokio::test]
async fn no_more_than_fourteen_files_of_logs_are_kept_and_nothing_else_is_touched() -> Result<()> {
    let place = place(DEMO_TOKEN).await?;
    let folder = place.forwarder.folder();
    let logs = folder.join("logs");
    fs::create_dir(&logs)?;
    for day in 1..=20 {
        fs::write(logs.join(format!("siem-forwarder.2020-01-{day:02}.log")), "old")?;
    }
    fs::write(logs.join("notes.txt"), "of somebody else")?;
    let child = Command::new(program("siem-forwarder")?)
        .arg("run")
        .arg("--manifest")
        .arg(place.forwarder.manifest())
        .arg("--secrets")
        .arg(place.forwarder.secrets())
        .arg("--state-dir")
        .arg(folder.join("state"))
        .args(["--listen", "127.0.0.1:0", "--logs-directory"])
        .arg(&logs)
        .stdin(Stdio::null())
        .stderr(fs::File::create(folder.join("errors"))?)
        .spawn()?;
    let _child = Leashed(child);
    until("it delivers", || place.receiver.ids().len() == 260).await?;
    let mut names: Vec<String> = fs::read_dir(&logs)?
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    ensure!(names.contains(&"notes.txt".to_owned()), "{names:?}");
    names.retain(|name| name.starts_with("siem-forwarder."));
    ensure!(names.len() == 14, "{names:?}");
    let today = names.last().context("today's")?;
    ensure!(!today.contains(".2020-"), "{names:?}");
    ensure!(fs::read_to_string(logs.join(today))?.contains("started"), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn render_takes_a_page_an_array_lines_and_one_record() -> Result<()> {
    let place = place(DEMO_TOKEN).await?;
    let manifest = place.forwarder.manifest().display().to_string();
    for stream in [Stream::Alerts, Stream::Activities] {
        let records = place.defender.records(stream);
        let all = records.join(",");
        let render = async |input: String, more: &[&str]| {
            let ended = forwarder(&[&["render", "--manifest", &manifest], more].concat(), &input)
                .await
                .unwrap();
            assert_eq!(ended.code, Some(0), "{}", ended.err);
            assert!(ended.err.is_empty(), "{}", ended.err);
            ended.out
        };
        let named = ["--stream", stream.as_str()];
        let lines = render(records.join("\n"), &named).await;
        ensure!(lines.lines().count() == records.len(), "one line each");
        ensure!(
            lines
                .lines()
                .all(|line| line.starts_with("<109>") && line.contains("|MCAS|SIEM_Agent|"))
        );
        ensure!(render(format!("[{all}]"), &named).await == lines, "an array");
        ensure!(
            render(format!("{{\"data\": [{all}], \"hasNext\": false}}"), &named).await == lines,
            "a page"
        );
        ensure!(
            render(records[0].clone(), &named).await.lines().next() == lines.lines().next(),
            "one record"
        );
        ensure!(
            render(records.join("\n"), &[]).await == lines,
            "{stream} are told by their fields"
        );
    }
    let ended = forwarder(
        &["render", "--manifest", &manifest],
        "{\"_id\": \"a\", \"timestamp\": 1}\n{\"timestamp\": 1}\n5\n",
    )
    .await?;
    ensure!(ended.code == Some(0) && ended.out.lines().count() == 1, "{ended:?}");
    ensure!(ended.err.lines().count() == 2 && ended.err.contains("missing"), "{}", ended.err);
    let ended = forwarder(&["render", "--manifest", &manifest], "no JSON").await?;
    ensure!(ended.code == Some(1) && ended.err.contains("standard input"), "{ended:?}");
    for (input, told) in [
        ("{\"data\": [{\"_id\": \"a\"", "ends too early at line 1 column "),
        ("[\n{]", "is broken at line 2 column 2"),
        ("", "there is no record in standard input"),
        ("{\"data\": []}", "there is no record in standard input"),
    ] {
        let ended = forwarder(&["render", "--manifest", &manifest], input).await?;
        ensure!(ended.err.contains(told) && ended.err.lines().count() == 1, "{input}: {ended:?}");
    }
    let (first, last) = (
        r#"{"_id":"nan","timestamp":1595096313000,"entities":[],"location":{"longitude":NaN,"latitude":-Infinity}}"#,
        r#"{"_id":"after","timestamp":1595096313000,"entities":[]}"#,
    );
    for (odd, n_skipped) in [
        (format!("{{\"data\":[{first},{last}],\"hasNext\":false,\"total\":NaN}}"), 0),
        (format!("\u{feff}{{\"data\":[{first},{{\"_id\":\"x\",}},{last}],\"hasNext\":false}}"), 1),
        (format!("[{first},{last}]"), 0),
        (format!("{first}\n{last}\n"), 0),
        (format!("[{},{last}]", first.replace(',', ",\n")), 0),
    ] {
        let ended = forwarder(&["render", "--manifest", &manifest], &odd).await?;
        let ids = ["externalId=nan ", "externalId=after "];
        ensure!(ids.iter().all(|id| ended.out.contains(id)), "{odd}: {ended:?}");
        ensure!(ended.out.lines().all(|line| line.contains("ALERT_UNSPECIFIED")), "{ended:?}");
        ensure!(ended.err.matches("malformed").count() == n_skipped, "{odd}: {ended:?}");
    }
    let marked = "\u{feff}{\"_id\": \"a\", \"timestamp\": 1}";
    let ended = forwarder(&["render", "--manifest", &manifest], marked).await?;
    ensure!(ended.code == Some(0) && ended.out.lines().count() == 1, "{ended:?}");
    ensure!(place.defender.requests().is_empty(), "render asks nobody");
    Ok(())
}

/// More records of one millisecond than `skip` reaches: what cannot be read is no success.
#[tokio::test]
async fn a_window_that_the_api_does_not_give_whole_is_told() -> Result<()> {
    let place = place(DEMO_TOKEN).await?;
    place.defender.produce_at(Stream::Alerts, 5_200, Duration::from_secs(7_200));
    let now = siem_agent_sim::clock::millis();
    let (from, to) = (time(now - 3 * 3_600_000), time(now - 3_600_000));
    let manifest = place.forwarder.manifest().display().to_string();
    let secrets = place.forwarder.secrets().display().to_string();
    let mut arguments = vec!["replay", "--manifest", &manifest, "--secrets", &secrets];
    arguments.extend(["--stream", "alerts", "--from", &from, "--to", &to]);
    let ended = forwarder(&arguments, "").await?;
    ensure!(ended.code == Some(1) && ended.err.contains("one millisecond"), "{ended:?}");
    ensure!(place.receiver.ids().len() >= 5_000, "what can be read is delivered");
    Ok(())
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

#[tokio::test]
async fn replay_delivers_a_window_again_and_leaves_the_checkpoint_alone() -> Result<()> {
    let mut place = place(DEMO_TOKEN).await?;
    place.forwarder.start().await?;
    until("all is delivered", || place.receiver.ids().len() == 260).await?;
    ensure!(place.forwarder.terminate().await?.success());
    let state = |place: &Place| -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(place.forwarder.folder().join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = state(&place);
    ensure!(!before.is_empty());
    let listed = |json: &str, field: &str| {
        serde_json::from_str::<Value>(json).unwrap()[field].as_i64().unwrap()
    };
    let activities = place.defender.records(Stream::Activities);
    let (from, to) = (listed(&activities[50], "created"), listed(&activities[149], "created"));
    let manifest = place.forwarder.manifest().display().to_string();
    let secrets = place.forwarder.secrets().display().to_string();
    let (from, to) = (time(from), time(to));
    let arguments =
        ["replay", "--manifest", &manifest, "--secrets", &secrets, "--from", &from, "--to", &to];
    let ended = forwarder(&[&arguments[..], &["--stream", "activities"]].concat(), "").await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(
        ended.out.trim() == "activities: 100 records delivered, 0 cannot be mapped",
        "{}",
        ended.out
    );
    let twice: Vec<String> = place
        .receiver
        .ids()
        .into_iter()
        .filter(|(_, count)| *count == 2)
        .map(|(id, _)| id)
        .collect();
    let mut wanted: Vec<String> = activities[50..150]
        .iter()
        .map(|json| {
            serde_json::from_str::<Value>(json).unwrap()["_id"].as_str().unwrap().to_owned()
        })
        .collect();
    wanted.sort();
    ensure!(twice == wanted, "{} twice", twice.len());
    ensure!(state(&place) == before, "the checkpoint is left alone");
    let ended = forwarder(&arguments, "").await?;
    ensure!(
        ended.out.lines().count() == 2 && ended.out.contains("alerts: "),
        "both streams: {}",
        ended.out
    );
    place.defender.set_token("another");
    let ended = forwarder(&arguments, "").await?;
    ensure!(ended.code == Some(1) && ended.err.contains("Invalid token"), "{ended:?}");
    Ok(())
}

/// A program in a network namespace whose loopback has these commands of `ip` done to it.
async fn answers_in(setup: &str, address: &str) -> Result<()> {
    let mut place = place(DEMO_TOKEN).await?;
    place.forwarder.run_by_config("u-1")?;
    let folder = place.forwarder.folder();
    let errors = folder.join("errors");
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c"])
        .arg(format!("ip link set lo up && {setup} && exec \"$0\" run --config \"$1\""))
        .arg(program("siem-forwarder")?)
        .arg(folder.join("config.json"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(&errors)?)
        .spawn()
        .context("run unshare (Debian's util-linux)")?;
    let child = Leashed(child);
    let ask = format!(
        "exec 3<>/dev/tcp/{address}/9464; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    );
    let target = child.0.id().to_string();
    eventually(PATIENCE, async || {
        let asked = Command::new("nsenter")
            .args(["--preserve-credentials", "--user", "--net", "--target", &target])
            .args(["bash", "-c", &ask])
            .output()?;
        ensure!(
            String::from_utf8_lossy(&asked.stdout).starts_with("HTTP/1.0 200"),
            "{address}: {} {}",
            String::from_utf8_lossy(&asked.stderr),
            fs::read_to_string(&errors)?
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_with_either_family_of_addresses_is_reached_as_it_ships() -> Result<()> {
    answers_in("ip address del 127.0.0.1/8 dev lo", "::1").await?;
    answers_in("true", "127.0.0.1").await?;
    answers_in("ip address del ::1/128 dev lo", "127.0.0.1").await?;
    // IPv6 by itself does not mean IPv4 where the machine's default says so.
    answers_in("echo 1 >/proc/sys/net/ipv6/bindv6only", "127.0.0.1").await
}

#[tokio::test]
async fn a_configuration_of_the_operator_runs_and_follows_its_live_file() -> Result<()> {
    let place = place(DEMO_TOKEN).await?;
    let folder = place.forwarder.folder();
    let (live, config) = (folder.join("live.json"), folder.join("config.json"));
    fs::write(&live, r#"{"version": 1, "requestsPerMinute": 6000, "logLevel": "info"}"#)?;
    let text = serde_json::json!({
        "version": 1, "agent": {"namespace": "security", "name": "soc", "uid": "u-1", "displayName": "SOC"},
        "source": {"auth": {"tokenSecretRef": {"name": "defender"}}, "cloudApps": {"url": place.defender.url(), "requestsPerMinute": 6000, "pollInterval": "1s"}},
        "format": {"type": "GenericCEF", "timeFormat": "RFC5424", "includePri": true, "priority": 109, "includeSystemName": true, "systemName": "soc", "dialect": "Legacy"},
        "syslog": {"host": "127.0.0.1", "port": place.receiver.port(), "protocol": "TCP", "header": "Legacy", "framing": "Newline", "maxMessageBytes": 8000, "confirmGrace": "250ms"},
        "startFrom": "2h", "listen": "127.0.0.1:0",
        "paths": {"secrets": place.forwarder.secrets(), "configMaps": folder, "state": folder.join("state"), "live": live},
    });
    fs::write(&config, text.to_string())?;
    let errors = folder.join("errors");
    let child = Command::new(program("siem-forwarder")?)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(fs::File::create(&errors)?)
        .spawn()?;
    let _child = Leashed(child);
    until("it delivers", || place.receiver.ids().len() == 260).await?;
    fs::write(&live, r#"{"version": 1, "requestsPerMinute": 7, "logLevel": "debug"}"#)?;
    until("it takes over", || {
        fs::read_to_string(&errors).unwrap().contains("requests_per_minute=7")
    })
    .await?;
    fs::write(&live, r#"{"version": 9}"#)?;
    until("a bad one is told", || {
        fs::read_to_string(&errors).unwrap().contains("keeping the old ones")
    })
    .await
    .context("live")
}
