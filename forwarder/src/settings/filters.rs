//! The user's filters as each source takes them. Typed ones and raw ones are ANDed; none is ever dropped. Pure.

use serde_json::{Map, Value, json};
use siem_agent_crds::siem_agent::{
    ActivityFilter, AlertFilter, EventTypes, Graph, HuntingTable, IpCategory, Severity,
};

use crate::event::Stream;
use crate::source::graph::filter::{Activities, Alerts};
use crate::source::xdr::Table;

type Filters = Map<String, Value>;

/// The filters of a stream of the portal's API.
pub(super) fn portal(types: &EventTypes, stream: Stream) -> Filters {
    match stream {
        Stream::Alerts => alerts(&types.alerts.filter),
        Stream::Activities => activities(&types.activities.filter),
    }
}

/// The hunting tables that can hold what the filters let through: a sign-in has no number of an app and no category of its
/// address.
pub(super) fn tables(graph: &Graph, types: &EventTypes) -> Vec<Table> {
    let filter = &types.activities.filter;
    let needs_columns = !filter.services.is_empty() || !filter.ip_categories.is_empty();
    let of = |table: &HuntingTable| match table {
        HuntingTable::CloudAppEvents => Some(Table::CloudAppEvents),
        HuntingTable::IdentityLogonEvents => (!needs_columns).then_some(Table::IdentityLogonEvents),
    };
    graph.tables.iter().filter_map(of).collect()
}

/// The filter of Graph's alerts.
pub(super) fn graph_alerts(filter: &AlertFilter) -> Alerts {
    let severity = |severity: &Severity| match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Informational => "informational",
    };
    Alerts {
        severities: filter.severities.iter().map(severity).collect(),
        services: filter.services.iter().map(ToString::to_string).collect(),
        policies: filter.policies.clone(),
    }
}

/// The filter of rows of the hunting tables.
pub(super) fn graph_activities(filter: &ActivityFilter) -> Activities {
    let category = |category: &IpCategory| match category {
        IpCategory::Corporate => "Corporate",
        IpCategory::Administrative => "Administrative",
        IpCategory::Risky => "Risky",
        IpCategory::VPN => "VPN",
        IpCategory::CloudProvider => "CloudProvider",
        IpCategory::Other => "Other",
    };
    Activities {
        services: filter.services.clone(),
        users: filter.users.iter().map(|user| user.to_lowercase()).collect(),
        event_types: filter.event_types.clone(),
        ip_categories: filter.ip_categories.iter().map(category).collect(),
        countries: filter.countries.clone(),
        condition: filter.condition.clone(),
    }
}

fn alerts(filter: &AlertFilter) -> Filters {
    let severities = filter.severities.iter().map(|severity| match severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Informational => 3,
    });
    let mut filters = Filters::new();
    any_of(&mut filters, "severity", severities.map(Value::from).collect());
    any_of(
        &mut filters,
        "entity.service",
        filter.services.iter().copied().map(Value::from).collect(),
    );
    any_of(&mut filters, "entity.policy", texts(&filter.policies));
    add_raw(&mut filters, &filter.raw);
    filters
}

fn activities(filter: &ActivityFilter) -> Filters {
    let categories = filter.ip_categories.iter().map(|category| match category {
        IpCategory::Corporate => 1,
        IpCategory::Administrative => 2,
        IpCategory::Risky => 3,
        IpCategory::VPN => 4,
        IpCategory::CloudProvider => 5,
        IpCategory::Other => 6,
    });
    let mut filters = Filters::new();
    any_of(&mut filters, "service", filter.services.iter().copied().map(Value::from).collect());
    any_of(&mut filters, "user.username", texts(&filter.users));
    any_of(&mut filters, "activity.eventType", texts(&filter.event_types));
    any_of(&mut filters, "ip.category", categories.map(Value::from).collect());
    any_of(&mut filters, "location.country", texts(&filter.countries));
    any_of(&mut filters, "policy", texts(&filter.policies));
    add_raw(&mut filters, &filter.raw);
    filters
}

fn texts(texts: &[String]) -> Vec<Value> {
    texts.iter().cloned().map(Value::from).collect()
}

fn any_of(filters: &mut Filters, field: &str, values: Vec<Value>) {
    if !values.is_empty() {
        filters.insert(field.to_owned(), json!({"eq": values}));
    }
}

/// What cannot be added is a problem that `manifest` has named.
fn add_raw(filters: &mut Filters, raw: &Filters) {
    for (field, conditions) in raw {
        let there = filters.entry(field.clone()).or_insert_with(|| json!({}));
        if let (Value::Object(there), Value::Object(conditions)) = (there, conditions) {
            let conditions = conditions.iter();
            there.extend(conditions.map(|(operator, operand)| (operator.clone(), operand.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both streams with their filters.
    fn streams(types: &EventTypes) -> Vec<(Stream, Filters)> {
        let both = [Stream::Alerts, Stream::Activities].into_iter();
        both.map(|stream| (stream, portal(types, stream))).collect()
    }

    #[test]
    fn typed_and_raw_filters_are_anded() {
        let mut types = EventTypes::default();
        types.activities.filter.services = vec![11161];
        types.activities.filter.ip_categories = vec![IpCategory::Risky, IpCategory::VPN];
        let raw = json!({"service": {"neq": [20893]}, "ip.tags": {"eq": ["x"]}});
        types.activities.filter.raw = raw.as_object().unwrap().clone();
        let streams = streams(&types);
        let expected = json!({
            "service": {"eq": [11161], "neq": [20893]}, "ip.category": {"eq": [3, 4]}, "ip.tags": {"eq": ["x"]},
        });
        assert_eq!(Value::Object(streams[1].1.clone()), expected);
    }

    #[test]
    fn every_value_becomes_what_the_api_takes() {
        let types = json!({
            "alerts": {"filter": {
                "severities": ["Low", "Medium", "High", "Informational"],
                "services": [11161, 20893],
                "policies": ["5f2c8a1e7b604c1d9e350a4d"],
            }},
            "activities": {"filter": {
                "services": [11161],
                "users": ["ada@example.com"],
                "eventTypes": ["EVENT_CATEGORY_LOGIN"],
                "ipCategories": ["Corporate", "Administrative", "Risky", "VPN", "CloudProvider", "Other"],
                "countries": ["NL", "DE"],
                "policies": ["5f2c8a1e7b604c1d9e350a4d", "62b1b0c0aa11bb22cc33dd44"],
            }},
        });
        let streams = streams(&serde_json::from_value(types).unwrap());
        let alerts = json!({
            "severity": {"eq": [0, 1, 2, 3]},
            "entity.service": {"eq": [11161, 20893]},
            "entity.policy": {"eq": ["5f2c8a1e7b604c1d9e350a4d"]},
        });
        let activities = json!({
            "service": {"eq": [11161]},
            "user.username": {"eq": ["ada@example.com"]},
            "activity.eventType": {"eq": ["EVENT_CATEGORY_LOGIN"]},
            "ip.category": {"eq": [1, 2, 3, 4, 5, 6]},
            "location.country": {"eq": ["NL", "DE"]},
            "policy": {"eq": ["5f2c8a1e7b604c1d9e350a4d", "62b1b0c0aa11bb22cc33dd44"]},
        });
        let expected = [(Stream::Alerts, alerts), (Stream::Activities, activities)];
        let streams = streams.into_iter().map(|(stream, filters)| (stream, Value::Object(filters)));
        assert_eq!(streams.collect::<Vec<_>>(), expected);
    }
}
