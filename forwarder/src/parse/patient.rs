//! The patient way to read a record: field by field, by name. It reads whatever is JSON.
//!
//! Of keys that come twice the last one counts, nothing is too deep and no number is too large. The quick way, by types,
//! must give the same or nothing.

use serde_json::value::RawValue;

use super::typed::{
    Activity, Actor, Alert, Device, Entity, Loose, Main, Many, Metadata, Object, Policy, User,
};
use crate::source::wire::{elements, pick};

/// `None` when it is no object.
pub(super) fn activity(json: &str) -> Option<Activity<'_>> {
    let names = [
        "_id",
        "timestamp",
        "created",
        "eventTypeName",
        "description_metadata",
        "description",
        "user",
        "failedUserData",
        "resolvedActor",
        "appName",
        "appId",
        "device",
        "mainInfo",
    ];
    let [
        id,
        timestamp,
        created,
        kind,
        metadata,
        description,
        raw_user,
        failed_user,
        actor,
        app_name,
        app_id,
        device,
        main,
    ] = pick(json, names)?;
    let [event_category, operation_name] = inner(metadata, ["event_category", "operation_name"]);
    let user = |user| {
        let [name] = inner(user, ["userName"]);
        Loose(User { name })
    };
    let [actor_name, actor_id] = inner(actor, ["name", "id"]);
    let [client_ip, user_agent] = inner(device, ["clientIP", "userAgent"]);
    let [objects] = inner(main, ["eventObjects"]);
    let objects = elements(objects).into_iter().map(|object| {
        let [name] = inner(Some(object), ["name"]);
        Loose(Object { name })
    });
    Some(Activity {
        id,
        timestamp,
        created,
        kind,
        metadata: Loose(Metadata { event_category, operation_name }),
        description,
        user: user(raw_user),
        failed_user: user(failed_user),
        actor: Loose(Actor { name: actor_name, id: actor_id }),
        app_name,
        app_id,
        device: Loose(Device { client_ip, user_agent }),
        main: Loose(Main { objects: Many(objects.collect()) }),
    })
}

/// `None` when it is no object.
pub(super) fn alert(json: &str) -> Option<Alert<'_>> {
    let names = [
        "_id",
        "timestamp",
        "idValue",
        "policy",
        "title",
        "description",
        "severityValue",
        "threatScore",
        "URL",
        "audits",
        "entities",
    ];
    let [id, timestamp, kind, policy, title, description, severity, score, url, audits, entities] =
        pick(json, names)?;
    let [policy_type, policy_label] = inner(policy, ["policyType", "label"]);
    let entities = elements(entities).into_iter().map(|entity| {
        let names = ["type", "id", "label", "pa", "em", "policyType"];
        let [kind, id, label, primary_address, email, policy_type] = inner(Some(entity), names);
        Loose(Entity { kind, id, label, primary_address, email, policy_type })
    });
    Some(Alert {
        id,
        timestamp,
        kind,
        policy: Loose(Policy { kind: policy_type, label: policy_label }),
        title,
        description,
        severity,
        score,
        url,
        audits: Many(elements(audits).into_iter().map(Some).collect()),
        entities: Many(entities.collect()),
    })
}

/// Fields of a nested object; all absent when it is something else.
fn inner<'a, const N: usize>(
    json: Option<&'a RawValue>,
    names: [&str; N],
) -> [Option<&'a RawValue>; N] {
    json.and_then(|json| pick(json.get(), names)).unwrap_or([None; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::typed;
    use proptest::prelude::*;

    /// JSON in which wanted names hold anything.
    fn json(names: &'static [&'static str], depth: u32) -> BoxedStrategy<String> {
        let scalar = prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-1.50",
            "1e5",
            "1e999",
            "123456789012345678901234567890",
            "\"\"",
            "\"null\"",
            "\"a\\\\b\"",
            "\"\\u00e9\"",
            "\" x \"",
            "{}",
            "[]",
            "[[],{}]",
        ])
        .prop_map(str::to_owned);
        scalar
            .prop_recursive(depth, 24, 5, move |inner| {
                let pair = (prop::sample::select(names), inner.clone())
                    .prop_map(|(name, value)| format!("\"{name}\": {value}"));
                prop_oneof![
                    prop::collection::vec(pair, 0..6)
                        .prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
                    prop::collection::vec(inner, 0..4)
                        .prop_map(|elements| format!("[{}]", elements.join(" , "))),
                ]
            })
            .boxed()
    }

    fn raw(value: Option<&RawValue>) -> Option<&str> {
        value.map(RawValue::get).filter(|json| *json != "null")
    }

    const OF_ACTIVITY: &[&str] = &[
        "_id",
        "timestamp",
        "user",
        "userName",
        "device",
        "clientIP",
        "mainInfo",
        "eventObjects",
        "name",
        "other",
        "description_metadata",
        "event_category",
        "resolvedActor",
        "id",
    ];
    const OF_ALERT: &[&str] = &[
        "_id",
        "timestamp",
        "policy",
        "policyType",
        "label",
        "audits",
        "entities",
        "type",
        "id",
        "pa",
        "other",
    ];

    proptest! {
        #[test]
        fn the_quick_way_reads_an_activity_alike_or_not_at_all(json in json(OF_ACTIVITY, 4)) {
            if let Some(quick) = typed::read::<Activity<'_>>(&json) {
                let patient = activity(&json).unwrap();
                let scalars = |it: &Activity<'_>| {
                    [it.id, it.timestamp, it.user.0.name, it.device.0.client_ip, it.actor.0.id, it.metadata.0.event_category]
                        .map(|value| raw(value).map(str::to_owned))
                };
                let names = |it: &Activity<'_>| -> Vec<_> {
                    it.main.0.objects.0.iter().map(|object| raw(object.0.name).map(str::to_owned)).collect()
                };
                prop_assert_eq!((scalars(&quick), names(&quick)), (scalars(&patient), names(&patient)));
            }
        }

        #[test]
        fn the_quick_way_reads_an_alert_alike_or_not_at_all(json in json(OF_ALERT, 4)) {
            if let Some(quick) = typed::read::<Alert<'_>>(&json) {
                let patient = alert(&json).unwrap();
                let fields = |it: &Alert<'_>| -> Vec<_> {
                    let scalars = [it.id, it.timestamp, it.policy.0.kind, it.policy.0.label].into_iter();
                    let entities = it.entities.0.iter().map(|entity| &entity.0);
                    let entities = entities.flat_map(|it| [it.kind, it.id, it.label, it.primary_address, it.policy_type]);
                    scalars.chain(it.audits.0.iter().copied()).chain(entities)
                        .map(|value| raw(value).map(str::to_owned)).collect()
                };
                prop_assert_eq!(fields(&quick), fields(&patient));
            }
        }
    }
}
