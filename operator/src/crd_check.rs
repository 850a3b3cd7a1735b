//! Whether the CRD on the server knows every field that this program knows. Read from `/openapi/v3`, which every
//! ServiceAccount may read, so that no right on CRDs is needed.
//!
//! Helm does not update CRDs by itself, and a server prunes what its CRD does not know without a word.

use std::time::Duration;

use kube::Client;
use serde_json::Value;
use siem_agent_crds::schema;
use tokio::time::timeout;

const PATH: &str = "/openapi/v3/apis/siemagent.dev/v1alpha1";
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the API server does not answer")]
    TimedOut,
    #[error("cannot read {PATH}")]
    Read(#[source] kube::Error),
    #[error("{PATH} is not a valid request path")]
    Request(#[source] http::Error),
    #[error("{PATH} does not describe SiemAgent")]
    Absent,
}

/// The fields that the server's CRD does not know.
///
/// # Errors
/// [`Error`].
pub(crate) async fn missing_fields(client: &Client) -> Result<Vec<String>, Error> {
    let request = http::Request::get(PATH).body(Vec::new()).map_err(Error::Request)?;
    let document: Value = timeout(PATIENCE, client.request(request))
        .await
        .map_err(|_elapsed| Error::TimedOut)?
        .map_err(Error::Read)?;
    let live = document
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .and_then(|schemas| schemas.iter().find(|(name, _)| name.ends_with(".SiemAgent")))
        .map(|(_, schema)| schema)
        .ok_or(Error::Absent)?;
    Ok(difference(&schema::object_schema(), live))
}

/// The dotted paths of the properties that `known` has and `live` has not.
fn difference(known: &Value, live: &Value) -> Vec<String> {
    fn walk(known: &Value, live: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, known) in
            known.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match live.get("properties").and_then(|live| live.get(name)) {
                Some(live) => walk(known, live, &at, missing),
                None => missing.push(at),
            }
        }
        if let (Some(known), Some(live)) = (known.get("items"), live.get("items")) {
            walk(known, live, path, missing);
        }
    }
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        let at = format!("/properties/{part}");
        let none = Value::Null;
        let (known, live) = (known.pointer(&at), live.pointer(&at));
        walk(known.unwrap_or(&none), live.unwrap_or(&none), part, &mut missing);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_server_does_not_know_is_named() {
        let known = schema::object_schema();
        assert_eq!(difference(&known, &known), Vec::<String>::new());
        let mut old = known.clone();
        let syslog = old.pointer_mut("/properties/spec/properties/syslog/properties").unwrap();
        syslog.as_object_mut().unwrap().remove("confirmGrace");
        assert_eq!(difference(&known, &old), ["spec.syslog.confirmGrace"]);
        // What a later version has besides is no reason to complain.
        assert_eq!(difference(&old, &known), Vec::<String>::new());
    }
}
