//! What each user asked of the API server, from its audit log: one JSON line a request.
//!
//! The log is written before a request is answered, so whoever has its answer finds it here. It holds no bodies, and
//! so no Secrets.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The policy: who asked for what and with which answer, once when a watch is open and once when a request ends.
pub(super) const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
/// Longer than any line.
const TAIL: u64 = 1 << 20;
/// The log's name in the control plane's folder.
pub(super) const LOG: &str = "audit.log";

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method.
    pub verb: String,
    /// The API group; empty for the core one, and for other paths.
    pub group: String,
    /// The plural; empty for paths that are no resource.
    pub resource: String,
    /// Such as `status`; mostly empty.
    pub subresource: String,
    /// Empty for what has none.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
    /// The path and query.
    pub uri: String,
    /// The client's name for itself.
    pub agent: String,
    /// The HTTP status.
    pub code: u16,
    /// When it came, RFC 3339.
    pub received: String,
    /// Whether this is a watch that was opened; its end is a request of its own.
    pub opened: bool,
}

impl Request {
    /// Whether it asked for a change. A review of rights is created, and nothing is kept of it.
    pub fn writes(&self) -> bool {
        self.group != "authorization.k8s.io"
            && !["get", "list", "watch", "head", "options"].contains(&self.verb.as_str())
    }
}

/// The end of the last whole line: a line that is being written is shown page by page, and comes after.
pub(super) fn position(folder: &Path) -> Result<u64> {
    let mut log = File::open(folder.join(LOG)).context("read the audit log")?;
    let begin = log.metadata()?.len().saturating_sub(TAIL);
    log.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    log.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    ensure!(whole > 0 || begin == 0, "a line of the audit log is longer than {TAIL} bytes");
    Ok(begin + whole as u64)
}

pub(super) fn requests_since(folder: &Path, position: u64) -> Result<Vec<Request>> {
    let mut log = File::open(folder.join(LOG)).context("read the audit log")?;
    log.seek(SeekFrom::Start(position))?;
    let mut text = String::new();
    log.read_to_string(&mut text)?;
    // A line that is being written belongs to a request without an answer.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole.lines().map(|line| read(line).with_context(|| format!("audit log: {line}"))).collect()
}

fn read(line: &str) -> Result<Request> {
    let Event {
        stage,
        verb,
        request_uri: uri,
        user_agent: agent,
        user,
        object_ref,
        response_status,
        request_received_timestamp: received,
    } = serde_json::from_str(line)?;
    let ObjectReference { api_group: group, resource, subresource, namespace, name } = object_ref;
    let opened = stage == "ResponseStarted";
    let (user, code) = (user.username, response_status.code);
    Ok(Request {
        user,
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        uri,
        agent,
        code,
        received,
        opened,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user_agent: String,
    user: EventUser,
    #[serde(default)]
    object_ref: ObjectReference,
    #[serde(default)]
    response_status: ResponseStatus,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct EventUser {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectReference {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_comes_after_the_position() {
        let folder = tempfile::tempdir().unwrap();
        let line = |verb: &str| {
            let event = r#"{"stage": "ResponseComplete", "verb": "VERB", "requestURI": "/", "user": {},
                "requestReceivedTimestamp": ""}"#;
            event.replace('\n', "").replace("VERB", verb) + "\n"
        };
        let (first, second) = (line("get"), line("list"));
        for n_shown in 0..second.len() {
            let log = folder.path().join(LOG);
            std::fs::write(&log, first.clone() + &second[..n_shown]).unwrap();
            let position = position(folder.path()).unwrap();
            std::fs::write(&log, first.clone() + &second).unwrap();
            let found = requests_since(folder.path(), position).unwrap();
            assert_eq!(found.len(), 1, "{n_shown} bytes were there");
            assert_eq!(found[0].verb, "list");
        }
    }
}
