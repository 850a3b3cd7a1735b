//! What is done for an agent that this version cannot decode: its status says so, and nothing else is touched.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use siem_agent_crds::SiemAgentStatus;
use siem_agent_crds::condition::{ConditionStatus, ConditionType, Reason};
use siem_agent_edge::clock;
use tokio::sync::Semaphore;
use tracing::warn;

use super::Error;
use super::status::{self, RESYNC};
use crate::agent::Undecodable;
use crate::context::Context;
use crate::key::Key;

/// When a large one is looked at again that had to wait for another.
const SOON: Duration = Duration::from_secs(2);
static ONE_BY_ONE: Semaphore = Semaphore::const_new(1);

/// An agent that this version cannot read: its status says so, and its forwarder goes on as it is.
///
/// # Errors
/// [`Error`].
pub(crate) async fn report(
    context: &Context,
    key: &Key,
    undecodable: &Undecodable,
) -> Result<Duration, Error> {
    super::sweep::withdraw(context, key).await?;
    let (previous, metadata, _place) = match &undecodable.status {
        // The server takes long for one, and the answer is as large: others are not held up by many.
        Some(status) => match ONE_BY_ONE.try_acquire() {
            Ok(place) => (status.clone(), undecodable.metadata.clone(), Some(place)),
            Err(_taken) => return Ok(SOON),
        },
        None => {
            let live = context
                .server
                .read_agent(&key.namespace, &key.name)
                .await
                .map_err(Error::Gather)?;
            let Some(live) = live else { return Ok(RESYNC) };
            let status = live.data.get("status").cloned().unwrap_or_default();
            (serde_json::from_value(status).unwrap_or_default(), live.metadata, None)
        }
    };
    let now = Time(jiff::Timestamp::from_second(clock::now().as_second()).unwrap_or_default());
    let message = format!(
        "this version of the operator cannot read the SiemAgent: {}; are CRD and operator of one release?",
        undecodable.error.chars().take(800).collect::<String>()
    );
    let condition = |type_: ConditionType, status: ConditionStatus| Condition {
        type_: type_.to_string(),
        status: status.to_string(),
        reason: Reason::Undecodable.to_string(),
        message: message.clone(),
        observed_generation: metadata.generation,
        last_transition_time: now.clone(),
    };
    let mut next = SiemAgentStatus {
        observed_generation: metadata.generation.unwrap_or(0),
        conditions: vec![
            condition(ConditionType::Ready, ConditionStatus::False),
            condition(ConditionType::Stalled, ConditionStatus::True),
        ],
        ..previous.clone()
    };
    for condition in &mut next.conditions {
        if let Some(before) =
            previous.conditions.iter().find(|before| before.type_ == condition.type_)
            && before.status == condition.status
        {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    if status::is_news(&previous, &next) {
        let version = metadata.resource_version.as_deref();
        context
            .server
            .write_status(key, version, &next, Reason::Undecodable.as_str())
            .await
            .map_err(Error::Status)?;
        warn!(
            namespace = key.namespace,
            name = key.name,
            reason = message,
            "an agent cannot be read"
        );
    }
    Ok(RESYNC)
}
