//! What of a spec neither the schema nor its rules can say: raw filters and the name that a certificate must carry. Both
//! programs check it here, so an agent that the operator accepts starts. Pure.

use rustls_pki_types::ServerName;

use super::Problem;
use crate::siem_agent::{ActivityFilter, AlertFilter, RawFilter, SyslogTls};

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

/// What is wrong with the raw filter of alerts.
pub fn raw_alerts(filter: &AlertFilter) -> Vec<Problem> {
    let typed = [
        ("severity", filter.severities.is_empty()),
        ("entity.service", filter.services.is_empty()),
        ("entity.policy", filter.policies.is_empty()),
    ];
    raw("alerts", &filter.raw, &typed)
}

/// What is wrong with the raw filter of activities.
pub fn raw_activities(filter: &ActivityFilter) -> Vec<Problem> {
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
    fn a_name_is_the_given_one_or_the_host() {
        assert!(server_name(None, "::1").is_ok());
        assert_eq!(server_name(None, "a_b..c").unwrap_err().path, "spec.syslog.host");
        let tls = serde_json::from_value(json!({"serverName": "-"})).unwrap();
        let problem = server_name(Some(&tls), "siem.example.com").unwrap_err();
        assert_eq!(problem.path, "spec.syslog.tls.serverName");
    }
}
