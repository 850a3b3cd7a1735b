//! What of a spec neither the schema nor its rules can say: filters, and the name that a certificate must carry. Both
//! programs check it here, so an agent that the operator accepts starts. Pure.

use rustls_pki_types::ServerName;

use super::{Problem, condition};
use crate::siem_agent::{
    ActivityFilter, AlertFilter, EventTypes, HuntingTable, RawFilter, Source, Stream, StreamSource,
    SyslogTls,
};

/// The name that the receiver's certificate must carry.
///
/// # Errors
/// [`Problem`]: no certificate can carry it.
pub fn server_name(
    tls: Option<&SyslogTls>,
    bare_host: &str,
) -> Result<ServerName<'static>, Problem> {
    let (path, name) = match tls.and_then(|tls| tls.server_name.as_deref()) {
        Some(name) => ("spec.syslog.tls.serverName", name),
        None => ("spec.syslog.host", bare_host),
    };
    ServerName::try_from(name.to_owned()).map_err(|_invalid| {
        Problem::new(path, format!("`{name}` is no name that a certificate can carry"))
    })
}

/// What is wrong with the filters, given the source that serves each stream.
pub fn filters(source: &Source, types: &EventTypes) -> Vec<Problem> {
    let is_graphs = |stream| source.serving(types, stream) == Some(StreamSource::Graph);
    let (alerts, activities) = (&types.alerts.filter, &types.activities.filter);
    let of_portal = |stream: &str, raw: &RawFilter| {
        let path = format!("spec.eventTypes.{stream}.filter.raw");
        let message = "holds cloudApps' own filters, which Graph does not know: take it out";
        (!raw.is_empty()).then(|| Problem::new(path, message)).into_iter().collect()
    };
    let mut problems: Vec<Problem> = if is_graphs(Stream::Alerts) {
        of_portal("alerts", &alerts.raw)
    } else {
        raw_alerts(alerts)
    };
    if !is_graphs(Stream::Activities) {
        problems.extend(raw_activities(activities));
        return problems;
    }
    problems.extend(of_portal("activities", &activities.raw));
    if let Some(flaw) = activities.condition.as_deref().and_then(condition::flaw) {
        problems.push(Problem::new("spec.eventTypes.activities.filter.where", flaw));
    }
    let needs_columns = !activities.services.is_empty() || !activities.ip_categories.is_empty();
    let has_them = source
        .graph
        .as_ref()
        .is_none_or(|graph| graph.tables.contains(&HuntingTable::CloudAppEvents));
    if needs_columns && !has_them {
        problems.push(Problem::new(
            "spec.source.graph.tables",
            "must hold CloudAppEvents with spec.eventTypes.activities.filter.services or ipCategories: a sign-in says neither",
        ));
    }
    problems
}

/// What is wrong with the raw filter of alerts.
fn raw_alerts(filter: &AlertFilter) -> Vec<Problem> {
    let typed = [
        ("severity", filter.severities.is_empty()),
        ("entity.service", filter.services.is_empty()),
        ("entity.policy", filter.policies.is_empty()),
    ];
    raw("alerts", &filter.raw, &typed)
}

/// What is wrong with the raw filter of activities.
fn raw_activities(filter: &ActivityFilter) -> Vec<Problem> {
    let typed = [
        ("service", filter.services.is_empty()),
        ("user.username", filter.users.is_empty()),
        ("activity.eventType", filter.event_types.is_empty()),
        ("ip.category", filter.ip_categories.is_empty()),
        ("location.country", filter.countries.is_empty()),
        ("policy", filter.policies.is_empty()),
    ];
    raw("activities", &filter.raw, &typed)
}

/// A raw filter may add operators to a typed one, but not give the same operator twice: a typed one is an `eq`.
fn raw(stream: &str, raw: &RawFilter, typed: &[(&str, bool)]) -> Vec<Problem> {
    let problem = |(field, conditions): (&String, &serde_json::Value)| {
        let path = format!("spec.eventTypes.{stream}.filter.raw.{field}");
        let Some(conditions) = conditions.as_object() else {
            let message = "must be an object of operators, such as {\"eq\": […]}";
            return Some(Problem::new(path, message));
        };
        let is_typed = typed.iter().any(|(known, is_empty)| known == field && !is_empty);
        (is_typed && conditions.contains_key("eq")).then(|| {
            Problem::new(
                format!("{path}.eq"),
                "is set by a typed filter as well; the API takes one operand an operator: keep one of them",
            )
        })
    };
    raw.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_raw_filter_adds_operators_to_a_typed_one_and_repeats_none() {
        let filter = |raw: serde_json::Value| AlertFilter {
            services: vec![11161],
            raw: raw.as_object().unwrap().clone(),
            ..AlertFilter::default()
        };
        let fine =
            json!({"entity.service": {"neq": [1]}, "severity": {"eq": [2]}, "id": {"eq": ["x"]}});
        assert_eq!(raw_alerts(&filter(fine)), []);
        let wrong = raw_alerts(&filter(json!({"entity.service": {"eq": [1]}, "id": [1]})));
        let paths: Vec<_> = wrong.iter().map(|problem| problem.path.as_str()).collect();
        let field = |field: &str| format!("spec.eventTypes.alerts.filter.raw.{field}");
        assert_eq!(paths, [field("entity.service.eq"), field("id")]);
    }

    #[test]
    fn graph_takes_no_filter_of_the_portals_and_needs_a_table_for_each() {
        let source: Source = serde_json::from_value(json!({
            "graph": {"tables": ["IdentityLogonEvents"]},
            "auth": {"clientCredentials": {"tenantId": "t", "clientId": "c", "clientSecretRef": {"name": "a"}}},
        }))
        .unwrap();
        let types = |value: serde_json::Value| serde_json::from_value(value).unwrap();
        let raw = json!({"id": {"eq": ["x"]}});
        let wrong = filters(
            &source,
            &types(json!({
                "alerts": {"filter": {"raw": raw}}, "activities": {"filter": {"raw": raw, "services": [1], "where": "true | take 1"}},
            })),
        );
        let paths: Vec<_> = wrong.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "spec.eventTypes.alerts.filter.raw",
            "spec.eventTypes.activities.filter.raw",
            "spec.eventTypes.activities.filter.where",
            "spec.source.graph.tables",
        ];
        assert_eq!(paths, expected);
        let fine = json!({"alerts": {"filter": {"raw": {}}}, "activities": {"filter": {"raw": {}, "users": ["a"]}}});
        assert_eq!(filters(&source, &types(fine)), []);
    }

    #[test]
    fn a_name_is_the_given_one_or_the_host() {
        assert!(server_name(None, "::1").is_ok());
        assert_eq!(server_name(None, "a_b..c").unwrap_err().path, "spec.syslog.host");
        let tls = serde_json::from_value(json!({"serverName": "-"})).unwrap();
        let problem = server_name(Some(&tls), "siem.example.com").unwrap_err();
        assert_eq!(problem.path, "spec.syslog.tls.serverName");
    }
}
