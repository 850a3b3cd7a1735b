//! Agents by the hundred: all are reconciled, and a pass over them in every state changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, FaultKind, Options as Portal};
use siem_agent_sim::fleet::{apply_all, manifest, manifests, n_made};
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::kwok::{Kwok, Takes};
use siem_agent_sim::node::{Image, Node, Options};
use siem_agent_sim::operator::Operator;
use siem_agent_tests::receiver::{Framing, Receiver};
use siem_agent_tests::scene::{Scene, condition};
use tokio::time::{Instant, sleep};

const N_AGENTS: usize = 500;
const N_URLS: usize = 100;

async fn list(scene: &Scene, what: &str) -> Result<Vec<Value>> {
    let list = scene.get(what).await?.with_context(|| format!("list {what}"))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

#[tokio::test]
async fn five_hundred_agents_come_at_once() -> Result<()> {
    let scene = Scene::alone().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    let client = scene.plane.client().await?;
    let position = scene.plane.audit_position()?;
    let began = Instant::now();
    apply_all(&client, &scene.namespace, &manifests(N_AGENTS, N_URLS)).await?;
    let until = Instant::now() + 5 * PATIENCE;
    let user = scene.place.user();
    loop {
        let n_made = n_made(&scene.plane.requests_since(position)?, &user);
        if n_made == 3 * N_AGENTS {
            break;
        }
        ensure!(n_made < 3 * N_AGENTS, "{n_made} objects were made");
        ensure!(Instant::now() < until, "only {n_made} objects: {}", operator.log());
        // A look reads a long log.
        sleep(10 * LOOK).await;
    }
    println!(
        "{N_AGENTS} agents have all their objects after {:?} (a debug build)",
        began.elapsed()
    );
    let until = Instant::now() + 5 * PATIENCE;
    loop {
        let agents = list(&scene, "siemagents").await?;
        let is_told = |agent: &&Value| {
            condition(agent, "Ready")["observedGeneration"] == agent["metadata"]["generation"]
        };
        if agents.len() == N_AGENTS && agents.iter().filter(is_told).count() == N_AGENTS {
            break;
        }
        ensure!(Instant::now() < until, "some have no status: {}", operator.log());
        sleep(10 * LOOK).await;
    }
    println!("resident: {} MiB (a debug build)", operator.resident_bytes()? >> 20);
    // Each tenant's 30 requests a minute are divided whole among its five agents.
    scene.until_quiet(Duration::from_secs(3)).await?;
    let mut budgets: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for config in list(&scene, "configmaps").await? {
        let name = config["metadata"]["name"].as_str().unwrap_or_default();
        let Some(agent) = name.strip_suffix("-config") else { continue };
        let n: usize = agent.trim_start_matches('a').parse()?;
        let live = config["data"]["live.yaml"].as_str().unwrap_or_default();
        let share = live.lines().find_map(|line| line.strip_prefix("requestsPerMinute: "));
        budgets.entry(n % N_URLS).or_default().push(share.context("a share")?.parse()?);
    }
    assert_eq!(budgets.len(), N_URLS);
    ensure!(budgets.values().all(|shares| *shares == [6; 5]), "{budgets:?}");
    Ok(())
}

/// So many agents of each state that need no process.
const N_EACH: usize = 24;

#[tokio::test]
async fn a_second_pass_over_two_hundred_agents_in_every_state_writes_nothing() -> Result<()> {
    let scene = Scene::alone().await?;
    let namespace = &scene.namespace;
    let forwarder = Image {
        program: program("siem-forwarder")?,
        arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
    };
    let broken = Image { program: PathBuf::from("/bin/false"), arguments: Vec::new() };
    let images = [("forwarder:1".to_owned(), forwarder), ("broken:1".to_owned(), broken)].into();
    let _node =
        Node::start(scene.plane, namespace, Options { images, ..Options::default() }).await?;
    let _kwok = Kwok::start(scene.plane, namespace, Takes::Selecting).await?;
    let portal = || Portal { rate: 1.0, budget: 0, ..Portal::default() };
    let (well, refusing) = (Defender::start(portal()).await?, Defender::start(portal()).await?);
    refusing.set_token("another");
    let (forbidding, throttling) =
        (Defender::start(portal()).await?, Defender::start(portal()).await?);
    forbidding.forbid(Stream::Alerts, true);
    forbidding.forbid(Stream::Activities, true);
    throttling.fault(Fault { n_requests: None, ..Fault::once(FaultKind::Throttle(None)) });
    let receiver = Receiver::start(Framing::Newline, None).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "defender"},
        "stringData": {"token": DEMO_TOKEN},
    });
    scene.kubectl(&["apply", "-f", "-"], &secret.to_string()).await?;
    let foreign = (0..N_EACH).map(|n| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: foreign-{n}-config}}\n")
    });
    scene.kubectl(&["create", "-f", "-"], &foreign.collect::<String>()).await?;
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {persistentvolumeclaims: \"0\"}}\n";
    scene.kubectl(&["create", "-f", "-"], quota).await?;
    scene.until("resourcequota/none", |it| it["status"]["hard"].is_object()).await?;

    let nowhere = "https://contoso.us2.portal.cloudappsecurity.com";
    let only_kwok = json!({"nodeSelector": {"type": "kwok"}});
    let no_port = siem_agent_sim::forwarder::free_port()?;
    let to = |port: u16| json!({"host": "127.0.0.1", "port": port});
    let quick = |url: String, secret: &str| {
        json!({
            "auth": {"tokenSecretRef": {"name": secret}},
            "cloudApps": {"url": url, "requestsPerMinute": 6000, "pollInterval": "1s"},
        })
    };
    let real = |source: Value, port: u16| json!({"source": source, "syslog": to(port)});
    let away = format!("http://127.0.0.1:{no_port}");
    // Name, how many, spec, Ready's reason.
    let states: Vec<(&str, usize, Value, &str)> = vec![
        ("kwok", N_EACH, json!({"forwarder": only_kwok}), "ReportUnavailable"),
        (
            "kept",
            N_EACH,
            json!({"forwarder": {"nodeSelector": {"type": "kwok"}, "networkPolicy": {"enabled": true}}}),
            "ReportUnavailable",
        ),
        ("suspended", N_EACH, json!({"suspend": true}), "Suspended"),
        (
            "beside",
            N_EACH,
            json!({"forwarder": {"podOverrides": {"spec": {"serviceAccountName": "x"}}}}),
            "InvalidSpec",
        ),
        (
            "invalid",
            N_EACH,
            json!({"forwarder": {"resources": {"limits": {"cpu": "lots"}}}}),
            "InvalidSpec",
        ),
        ("foreign", N_EACH, json!({}), "ForeignObject"),
        ("refused", N_EACH, json!({"forwarder": {"persistence": {"enabled": true}}}), "Rejected"),
        (
            "nowhere",
            N_EACH,
            json!({"forwarder": {"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}}),
            "Unschedulable",
        ),
        ("no-image", 2, json!({"forwarder": {"image": "nowhere:1"}}), "ImagePullBackOff"),
        ("crashing", 2, json!({"forwarder": {"image": "broken:1"}}), "CrashLoopBackOff"),
        ("well", 3, real(quick(well.url(), "defender"), receiver.port()), "Delivering"),
        ("no-secret", 2, real(quick(well.url(), "absent"), receiver.port()), "SecretMissing"),
        ("bad-token", 2, real(quick(refusing.url(), "defender"), receiver.port()), "TokenInvalid"),
        (
            "no-right",
            2,
            real(quick(forbidding.url(), "defender"), receiver.port()),
            "TokenForbidden",
        ),
        (
            "throttled",
            2,
            real(quick(throttling.url(), "defender"), receiver.port()),
            "SourceThrottled",
        ),
        ("no-portal", 2, real(quick(away, "defender"), receiver.port()), "SourceUnreachable"),
        ("no-siem", 2, real(quick(well.url(), "defender"), no_port), "TargetUnreachable"),
    ];
    let mut agents = Vec::new();
    for (state, n, spec, _) in &states {
        agents.extend((0..*n).map(|n| manifest(&format!("{state}-{n}"), nowhere, spec.clone())));
    }
    ensure!(agents.len() > 200, "{}", agents.len());
    let operator = Operator::start(&scene.place, &["--forwarder-image", "forwarder:1"]).await?;
    apply_all(&scene.plane.client().await?, namespace, &agents).await?;
    let until = Instant::now() + 4 * PATIENCE;
    loop {
        let live = list(&scene, "siemagents").await?;
        let reason = |name: &str| {
            let agent = live.iter().find(|agent| agent["metadata"]["name"] == name);
            agent.map(|agent| condition(agent, "Ready")["reason"].clone())
        };
        let wrong = states.iter().flat_map(|(state, n, _, expected)| {
            (0..*n).map(move |n| (format!("{state}-{n}"), *expected))
        });
        let wrong: Vec<_> = wrong
            .map(|(name, expected)| (reason(&name), name, expected))
            .filter(|(reason, _, expected)| *reason != Some(json!(expected)))
            .collect();
        if wrong.is_empty() {
            break;
        }
        ensure!(Instant::now() < until, "{wrong:?}");
        sleep(10 * LOOK).await;
    }
    // Checkpoints have a schedule of their own, and what was refused has to be tried again; nothing else is written under
    // live traffic.
    let other_writes = |position: u64| -> Result<Vec<_>> {
        let mut writes = scene.writes_since(position)?;
        writes.retain(|write| {
            let is_refused = write.code == 403 && write.name.starts_with("refused-");
            !write.name.ends_with("-checkpoint") && !is_refused
        });
        Ok(writes)
    };
    let until = Instant::now() + 2 * PATIENCE;
    let mut position = scene.plane.audit_position()?;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        ensure!(Instant::now() < until, "it does not come to rest: {:?}", other_writes(position)?);
        sleep(LOOK).await;
        if !other_writes(position)?.is_empty() {
            (position, since) = (scene.plane.audit_position()?, Instant::now());
        }
    }
    operator.terminate().await?;
    let position = scene.plane.audit_position()?;
    let operator = Operator::start(&scene.place, &["--forwarder-image", "forwarder:1"]).await?;
    // Every agent twice at least: at the start, and after a change that concerns nobody.
    for round in 1..=2 {
        let until = Instant::now() + PATIENCE;
        let n_agents = agents.len() as f64;
        loop {
            let passes = operator.series("controller_runtime_reconcile_total{").await?;
            let n_passes: f64 = passes.iter().map(|(_, n)| n).sum();
            if n_passes >= f64::from(round) * n_agents {
                break;
            }
            ensure!(Instant::now() < until, "{n_passes} passes: {}", operator.log());
            sleep(LOOK).await;
        }
        let touched = format!("example.com/touched=round-{round}");
        scene.kubectl(&["annotate", "siemagents", "--all", "--overwrite", &touched], "").await?;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(other_writes(position)?, [], "{}", operator.log());
    ensure!(!receiver.frames().is_empty(), "there was traffic");
    Ok(())
}
