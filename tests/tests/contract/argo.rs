//! Argo CD's judgement of a SiemAgent: `deploy/argocd/health.lua`, run by the Lua whose language Argo CD speaks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/argocd/health.lua");

/// A value as Lua writes it; null is absent, as it is for Argo CD.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(lua).collect();
            format!("{{{}}}", items.join(","))
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("[{key:?}]={}", lua(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// Status and message.
fn health(agent: &Value) -> Result<(String, String)> {
    let program = format!(
        "obj = {}\nlocal health = dofile(arg[1])\nprint(health.status)\nprint(health.message)\n",
        lua(agent)
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ask.lua");
    std::fs::write(&path, program)?;
    let out = Command::new("lua5.1").args([&path, Path::new(SCRIPT)]).output();
    let out =
        out.context("lua5.1 is missing: apt-get install lua5.1, or tests/run --install-only")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout)?;
    let (status, message) = text.trim_end().split_once('\n').context("two lines")?;
    Ok((status.to_owned(), message.to_owned()))
}

/// An agent of generation 3 with these conditions, each type, status and reason.
fn agent(suspend: bool, conditions: &[[&str; 3]]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|[type_, status, reason]| {
            json!({"type": type_, "status": status, "reason": reason, "message": "\"so\" it is"})
        })
        .collect();
    json!({
        "metadata": {"generation": 3},
        "spec": {"suspend": suspend},
        "status": {"observedGeneration": 3, "conditions": conditions},
    })
}

#[test]
fn argo_cd_judges_as_the_conditions_do() -> Result<()> {
    let says = |agent: &Value, status: &str, message: &str| {
        let found = health(agent).with_context(|| agent.to_string())?;
        assert_eq!(found, (status.to_owned(), message.to_owned()), "{agent}");
        anyhow::Ok(())
    };
    let token = ["TokenValid", "True", "Valid"];
    says(
        &agent(false, &[["Ready", "True", "Delivering"], token]),
        "Healthy",
        "Delivering: \"so\" it is",
    )?;
    let rolling = [["Ready", "False", "Progressing"], ["Reconciling", "True", "RollingOut"], token];
    says(&agent(false, &rolling), "Progressing", "RollingOut: \"so\" it is")?;
    // What waits for a roll-out keeps running, and is as well as it says.
    let queued = [["Ready", "True", "Delivering"], ["Reconciling", "True", "RolloutQueued"]];
    says(&agent(false, &queued), "Healthy", "Delivering: \"so\" it is")?;
    let halted = [["Ready", "False", "TokenInvalid"], ["Reconciling", "True", "RolloutHalted"]];
    says(&agent(false, &halted), "Degraded", "TokenInvalid: \"so\" it is")?;
    let refused = [["Ready", "False", "ForeignObject"], ["Stalled", "True", "ForeignObject"]];
    says(&agent(false, &refused), "Degraded", "ForeignObject: \"so\" it is")?;
    let dead = [["Ready", "False", "TokenInvalid"], ["TokenValid", "False", "Invalid"]];
    says(&agent(false, &dead), "Degraded", "TokenInvalid: \"so\" it is")?;
    let suspended = [["Ready", "False", "Suspended"]];
    says(&agent(true, &suspended), "Suspended", "spec.suspend is true")?;

    // Paused by its user, whatever waits meanwhile.
    let mut paused = agent(false, &[["Ready", "True", "Delivering"], ["Paused", "True", "Paused"]]);
    says(&paused, "Suspended", "\"so\" it is")?;
    paused["metadata"]["generation"] = 4.into();
    says(&paused, "Suspended", "\"so\" it is")?;

    // Not looked at yet: no status, the default of the schema, or the one of an earlier generation.
    let waiting = "The operator has not looked at it yet";
    says(&json!({"metadata": {"generation": 1}, "spec": {}}), "Progressing", waiting)?;
    for seen in [-1, 2] {
        let mut agent = agent(false, &[["Ready", "True", "Delivering"]]);
        agent["status"]["observedGeneration"] = seen.into();
        says(&agent, "Progressing", waiting)?;
    }
    let mut bare = agent(false, &[]);
    bare["status"] = json!({"observedGeneration": 3});
    says(&bare, "Progressing", waiting)
}
