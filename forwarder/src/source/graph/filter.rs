//! The user's filters on Graph: what it can filter exactly, it is asked to; the rest is left out here. Pure.

use std::fmt::Write as _;

use crate::event::{Event, Evidence, GraphAlert};
use crate::map;
use crate::source::xdr::Table;

/// Conditions on alerts; an empty list sets none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    /// As Graph writes them.
    pub severities: Vec<&'static str>,
    /// Numbers of apps.
    pub services: Vec<String>,
    /// Ids of policies.
    pub policies: Vec<String>,
}

/// Conditions on rows of the hunting tables; an empty list sets none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activities {
    /// Numbers of apps.
    pub services: Vec<i64>,
    /// Names of users, in small letters.
    pub users: Vec<String>,
    /// Signatures.
    pub event_types: Vec<String>,
    /// As the table writes them, without their blanks and whatever the case.
    pub ip_categories: Vec<&'static str>,
    /// ISO 3166 codes.
    pub countries: Vec<String>,
    /// One condition in KQL.
    pub condition: Option<String>,
}

impl Alerts {
    /// What Graph filters: an OData expression with `and` before it, or nothing.
    pub(super) fn odata(&self) -> String {
        if self.severities.is_empty() {
            return String::new();
        }
        format!(" and {}", any_of("severity", &self.severities))
    }

    /// Whether an alert passes what Graph does not filter.
    pub(super) fn passes(&self, event: &Event) -> bool {
        let Event::GraphAlert(alert) = event else { return true };
        (self.services.is_empty() || self.is_of_a_service(alert))
            && (self.policies.is_empty()
                || alert.policy_id.as_ref().is_some_and(|id| self.policies.contains(id)))
    }

    fn is_of_a_service(&self, alert: &GraphAlert) -> bool {
        alert.evidence.iter().any(|evidence| {
            matches!(evidence, Evidence::CloudApplication { app_id: Some(id), .. } if self.services.contains(id))
        })
    }
}

/// `(FIELD eq 'a' or FIELD eq 'b')`.
pub(super) fn any_of(field: &str, values: &[impl AsRef<str>]) -> String {
    let one =
        |value: &dyn AsRef<str>| format!("{field} eq '{}'", value.as_ref().replace('\'', "''"));
    let all: Vec<String> = values.iter().map(|value| one(value)).collect();
    format!("({})", all.join(" or "))
}

impl Activities {
    /// What Graph filters of a table: lines of KQL, each a `where`.
    pub(super) fn kql(&self, table: Table) -> String {
        let mut lines = String::new();
        let mut add = |condition: String| {
            // A `String` takes everything.
            let _ = writeln!(lines, "| where {condition}");
        };
        let country = match table {
            Table::CloudAppEvents => "CountryCode",
            Table::IdentityLogonEvents => {
                // No sign-in to a cloud app.
                add("Application != \"Active Directory\"".to_owned());
                "Location"
            }
        };
        if !self.services.is_empty() {
            let numbers: Vec<String> = self.services.iter().map(ToString::to_string).collect();
            add(format!("ApplicationId in ({})", numbers.join(", ")));
        }
        if !self.ip_categories.is_empty() {
            let categories = texts(&self.ip_categories);
            add(format!("replace_string(IPCategory, \" \", \"\") in~ ({categories})"));
        }
        if !self.countries.is_empty() {
            add(format!("{country} in ({})", texts(&self.countries)));
        }
        if let Some(condition) = &self.condition {
            // On lines of its own, so that a comment in it ends there; in parentheses, so that it stays one condition.
            add(format!("(\n{condition}\n)"));
        }
        lines
    }

    /// Whether a row passes what Graph does not filter.
    pub(super) fn passes(&self, event: &Event) -> bool {
        let is_user = || {
            let user = map::user(event).map(|user| user.to_lowercase());
            user.is_some_and(|user| self.users.contains(&user))
        };
        let is_type = || self.event_types.iter().any(|of| *of == map::signature(event));
        (self.users.is_empty() || is_user()) && (self.event_types.is_empty() || is_type())
    }
}

fn texts(values: &[impl AsRef<str>]) -> String {
    let all: Vec<String> = values.iter().map(|value| text(value.as_ref())).collect();
    all.join(", ")
}

/// A string literal of KQL (Kusto, "The string data type").
pub(super) fn text(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => literal.extend(['\\', char]),
            char if char.is_control() => {
                // A `String` takes everything.
                let _ = write!(literal, "\\u{:04x}", u32::from(char));
            }
            char => literal.push(char),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CloudAppEvent, IdentityLogonEvent};

    #[test]
    fn graph_is_asked_for_what_it_filters_exactly() {
        let alerts = Alerts { severities: vec!["medium", "high"], ..Alerts::default() };
        assert_eq!(alerts.odata(), " and (severity eq 'medium' or severity eq 'high')");
        assert_eq!(Alerts::default().odata(), "");
        let activities = Activities {
            services: vec![11161, 20893],
            ip_categories: vec!["CloudProvider"],
            countries: vec!["NL".to_owned()],
            condition: Some("ActionType != \"x\" // or not".to_owned()),
            ..Activities::default()
        };
        assert_eq!(
            activities.kql(Table::CloudAppEvents),
            "| where ApplicationId in (11161, 20893)\n\
             | where replace_string(IPCategory, \" \", \"\") in~ (\"CloudProvider\")\n\
             | where CountryCode in (\"NL\")\n\
             | where (\nActionType != \"x\" // or not\n)\n"
        );
        let sign_ins = Activities { countries: vec!["NL".to_owned()], ..Activities::default() };
        assert_eq!(
            sign_ins.kql(Table::IdentityLogonEvents),
            "| where Application != \"Active Directory\"\n| where Location in (\"NL\")\n"
        );
        assert_eq!(Activities::default().kql(Table::CloudAppEvents), "");
    }

    #[test]
    fn a_text_of_kql_stays_one_whatever_is_in_it() {
        assert_eq!(text("a\"b\\c\nd\u{e9}"), "\"a\\\"b\\\\c\\u000ad\u{e9}\"");
    }

    #[test]
    fn the_rest_is_left_out_here() {
        let row = |user: &str, action: &str| {
            Event::CloudAppEvent(Box::new(CloudAppEvent {
                user: Some(user.to_owned()),
                action: Some(action.to_owned()),
                ..CloudAppEvent::default()
            }))
        };
        let users =
            Activities { users: vec!["ada@example.com".to_owned()], ..Activities::default() };
        assert!(users.passes(&row("Ada@Example.com", "x")) && !users.passes(&row("bob", "x")));
        let types = Activities {
            event_types: vec!["EVENT_CATEGORY_LOGIN".to_owned()],
            ..Activities::default()
        };
        assert!(
            types.passes(&row("a", "UserLoggedIn")) && !types.passes(&row("a", "FileAccessed"))
        );
        let logon = IdentityLogonEvent {
            action: Some("LogonSuccess".to_owned()),
            ..IdentityLogonEvent::default()
        };
        assert!(types.passes(&Event::IdentityLogonEvent(Box::new(logon))));
        let alert = |policy: Option<&str>, app: Option<&str>| {
            let app_id = app.map(str::to_owned);
            let evidence = Evidence::CloudApplication { app_id, name: None, instance_name: None };
            Event::GraphAlert(Box::new(GraphAlert {
                policy_id: policy.map(str::to_owned),
                evidence: vec![evidence],
                ..GraphAlert::default()
            }))
        };
        let of = |services: &[&str], policies: &[&str]| Alerts {
            services: services.iter().map(|text| (*text).to_owned()).collect(),
            policies: policies.iter().map(|text| (*text).to_owned()).collect(),
            ..Alerts::default()
        };
        assert!(of(&["11161"], &[]).passes(&alert(None, Some("11161"))));
        assert!(!of(&["11161"], &[]).passes(&alert(None, Some("20893"))));
        assert!(!of(&["11161"], &["p"]).passes(&alert(None, Some("11161"))));
        assert!(of(&[], &["p"]).passes(&alert(Some("p"), None)));
    }
}
