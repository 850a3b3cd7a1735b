//! The filters of both endpoints: which fields, operators and operands there are, what the portal answers to others, and
//! which records a filter lets through.
//!
//! The tables are the vendor's lists of filters, and the few that are used though they are not listed.

use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

const DAY_MS: i64 = 24 * 3_600_000;

/// What a field is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Numbers, one or a list.
    Numbers,
    /// Texts, one or a list.
    Texts,
    /// `true` or `false`.
    Truth,
    /// Entities: `{"id": …, "inst": …}`.
    Entities,
    /// Milliseconds since the epoch.
    Time,
}

/// Where a record keeps what a field is compared with.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// At any of these JSON pointers.
    At(&'static [&'static str]),
    /// The ids of an alert's entities of any of these types.
    Entity(&'static [&'static str]),
    /// Whether an alert's field holds another value than this number.
    Differs(&'static str, i64),
    /// Nothing here says so: it is known, and no record has it.
    Nowhere,
}

struct Field {
    name: &'static str,
    kind: Kind,
    operators: &'static [&'static str],
    of: Of,
}

const IS: &[&str] = &["eq", "neq"];
const IS_SET: &[&str] = &["eq", "neq", "isset", "isnotset"];
const TEXT: &[&str] = &[
    "eq",
    "neq",
    "isset",
    "isnotset",
    "startswith",
    "startswithsingle",
    "endswith",
    "contains",
    "ncontains",
    "doesnotstartwith",
];
const WHEN: &[&str] = &["lte", "gte", "lt", "gt", "eq", "range", "lte_ndays", "gte_ndays"];
const DATE: &[&str] = &["lte", "gte", "range", "lte_ndays", "gte_ndays"];

const fn field(
    name: &'static str,
    kind: Kind,
    operators: &'static [&'static str],
    of: Of,
) -> Field {
    Field { name, kind, operators, of }
}

const ACTIVITIES: &[Field] = &[
    field("created", Kind::Time, WHEN, Of::At(&["/created"])),
    field("date", Kind::Time, DATE, Of::At(&["/timestamp"])),
    field("service", Kind::Numbers, IS, Of::At(&["/appId"])),
    field("instance", Kind::Numbers, IS, Of::Nowhere),
    field("source", Kind::Numbers, IS, Of::At(&["/source"])),
    field("ip.category", Kind::Numbers, IS, Of::At(&["/location/category"])),
    field("ip.address", Kind::Texts, TEXT, Of::At(&["/device/clientIP"])),
    field("ip.tags", Kind::Texts, IS_SET, Of::Nowhere),
    field("location.country", Kind::Texts, IS_SET, Of::At(&["/location/countryCode"])),
    field("location.organizations", Kind::Texts, TEXT, Of::Nowhere),
    field("user.username", Kind::Texts, TEXT, Of::At(&["/user/userName"])),
    field("user.domain", Kind::Texts, IS_SET, Of::Nowhere),
    field("user.orgUnit", Kind::Texts, TEXT, Of::Nowhere),
    field("user.tags", Kind::Texts, IS_SET, Of::At(&["/user/userTags"])),
    field("entity", Kind::Entities, IS_SET, Of::At(&["/resolvedActor/id"])),
    field("activity.eventType", Kind::Texts, IS, Of::At(&["/eventTypeName", "/eventTypeValue"])),
    field("activity.actionType", Kind::Texts, IS, Of::At(&["/eventTypeName", "/eventTypeValue"])),
    field(
        "activity.eventActionType",
        Kind::Texts,
        TEXT,
        Of::At(&["/eventTypeName", "/eventTypeValue"]),
    ),
    field("actionType", Kind::Texts, IS, Of::At(&["/eventTypeValue"])),
    field("activity.id", Kind::Texts, IS, Of::At(&["/_id"])),
    field("activity.alertId", Kind::Texts, IS, Of::Nowhere),
    field("activity.impersonated", Kind::Truth, &["eq"], Of::Nowhere),
    field("activity.type", Kind::Truth, &["eq"], Of::Nowhere),
    field("activity.takenAction", Kind::Texts, IS, Of::Nowhere),
    field("activityObject", Kind::Texts, IS_SET, Of::Nowhere),
    field("device.type", Kind::Texts, IS, Of::At(&["/userAgent/deviceType"])),
    field("device.tags", Kind::Texts, IS_SET, Of::Nowhere),
    field(
        "userAgent.userAgent",
        Kind::Texts,
        &["contains", "ncontains"],
        Of::At(&["/device/userAgent"]),
    ),
    field("userAgent.tags", Kind::Texts, IS_SET, Of::Nowhere),
    field("fileSelector", Kind::Texts, IS_SET, Of::Nowhere),
    field("fileLabels", Kind::Texts, IS_SET, Of::Nowhere),
    field("office365url", Kind::Texts, TEXT, Of::Nowhere),
    field("fileId", Kind::Texts, IS, Of::Nowhere),
    field("policy", Kind::Texts, IS_SET, Of::At(&["/policies"])),
    field("text", Kind::Texts, &["text", "eq"], Of::At(&["/description"])),
];

const ALERTS: &[Field] = &[
    field("date", Kind::Time, DATE, Of::At(&["/timestamp"])),
    field("resolutionDate", Kind::Time, DATE, Of::Nowhere),
    field("severity", Kind::Numbers, IS, Of::At(&["/severityValue"])),
    field("resolutionStatus", Kind::Numbers, IS, Of::At(&["/resolutionStatusValue"])),
    field("risk", Kind::Numbers, IS, Of::At(&["/threatScore"])),
    field("alertType", Kind::Numbers, IS, Of::At(&["/idValue"])),
    field("alertOpen", Kind::Truth, &["eq"], Of::Differs("/resolutionStatusValue", 2)),
    field("read", Kind::Truth, &["eq"], Of::Differs("/statusValue", 0)),
    field("id", Kind::Texts, IS, Of::At(&["/_id"])),
    field("source", Kind::Texts, IS, Of::Nowhere),
    field("entity.entity", Kind::Entities, IS, Of::Entity(&["account", "user"])),
    field("entity.ip", Kind::Texts, IS, Of::Entity(&["ip"])),
    field("entity.service", Kind::Numbers, IS, Of::Entity(&["service"])),
    field("entity.instance", Kind::Numbers, IS, Of::Nowhere),
    field("entity.policy", Kind::Texts, IS, Of::Entity(&["policyRule"])),
    field("entity.file", Kind::Texts, IS, Of::Entity(&["file"])),
];

/// One condition that a record has to meet.
#[derive(Debug)]
struct Condition {
    of: Of,
    operator: String,
    operands: Vec<Value>,
}

/// The conditions of a question, without the one on the time by which the list is ordered.
#[derive(Debug)]
pub(super) struct Filters {
    /// The first and the last listed time that may be shown.
    pub(super) window: (i64, i64),
    conditions: Vec<Condition>,
}

impl Filters {
    /// Reads a question's `filters`; what the portal does not know is refused in its words.
    pub(super) fn read(stream: Stream, filters: &Value, now: i64) -> Result<Self, Value> {
        let Some(fields) = filters.as_object() else { return Err(refusal("filters", filters)) };
        let (table, listed) = match stream {
            Stream::Alerts => (ALERTS, "date"),
            Stream::Activities => (ACTIVITIES, "created"),
        };
        let mut read = Self { window: (i64::MIN, i64::MAX), conditions: Vec::new() };
        for (name, operators) in fields {
            if name == super::page::CURSOR {
                continue;
            }
            let field = table.iter().find(|field| field.name == name);
            let (Some(field), Some(operators)) = (field, operators.as_object()) else {
                return Err(refusal(name, operators));
            };
            for (operator, operand) in operators {
                if !field.operators.contains(&operator.as_str()) {
                    return Err(refusal(operator, operand));
                }
                let operands = operands(field.kind, operator, operand)
                    .ok_or_else(|| refusal(operator, operand))?;
                if field.kind == Kind::Time && name == listed {
                    read.narrow(operator, &operands, now);
                } else {
                    let operator = operator.clone();
                    read.conditions.push(Condition { of: field.of, operator, operands });
                }
            }
        }
        Ok(read)
    }

    fn narrow(&mut self, operator: &str, operands: &[Value], now: i64) {
        for (from, until) in operands.iter().filter_map(|operand| window(operator, operand, now)) {
            self.window = (self.window.0.max(from), self.window.1.min(until));
        }
    }

    /// Whether a record meets every condition but the window.
    pub(super) fn let_through(&self, json: &str, now: i64) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let record = serde_json::from_str(json).unwrap_or(Value::Null);
        self.conditions.iter().all(|condition| condition.holds(&record, now))
    }
}

impl Condition {
    fn holds(&self, record: &Value, now: i64) -> bool {
        let found = self.of.values(record);
        let texts: Vec<String> = found.iter().map(plain).collect();
        let any = |test: fn(&str, &str) -> bool| {
            let operands: Vec<String> = self.operands.iter().map(plain).collect();
            texts.iter().any(|text| operands.iter().any(|operand| test(text, operand)))
        };
        let within = || {
            let times = found.iter().filter_map(time).collect::<Vec<_>>();
            let windows = self.operands.iter().filter_map(|one| window(&self.operator, one, now));
            windows
                .into_iter()
                .any(|(from, until)| times.iter().any(|time| (from..=until).contains(time)))
        };
        match self.operator.as_str() {
            "eq" => any(|text, operand| text == operand),
            "neq" => !any(|text, operand| text == operand),
            "isset" => !texts.is_empty(),
            "isnotset" => texts.is_empty(),
            "startswith" | "startswithsingle" => any(|text, operand| text.starts_with(operand)),
            "doesnotstartwith" => !any(|text, operand| text.starts_with(operand)),
            "endswith" => any(|text, operand| text.ends_with(operand)),
            "contains" | "text" => any(|text, operand| text.contains(operand)),
            "ncontains" => !any(|text, operand| text.contains(operand)),
            _ => within(),
        }
    }
}

impl Of {
    fn values(self, record: &Value) -> Vec<Value> {
        let known = |value: &&Value| !value.is_null() && value.as_str() != Some("null");
        match self {
            Self::At(pointers) => {
                let found = pointers.iter().filter_map(|pointer| record.pointer(pointer));
                let each = found.flat_map(|value| match value {
                    Value::Array(values) => values.iter().collect(),
                    one => vec![one],
                });
                each.filter(known).cloned().collect()
            }
            Self::Entity(types) => {
                let entities = record.get("entities").and_then(Value::as_array);
                let of_type = entities.into_iter().flatten().filter(|entity| {
                    let kind = entity.get("type").and_then(Value::as_str).unwrap_or_default();
                    types.contains(&kind)
                });
                of_type.filter_map(|entity| entity.get("id")).filter(known).cloned().collect()
            }
            Self::Differs(pointer, number) => {
                let found = record.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
                vec![Value::Bool(found != number)]
            }
            Self::Nowhere => Vec::new(),
        }
    }
}

/// As it is compared: numbers and texts of numbers are the same, and case does not matter.
fn plain(value: &Value) -> String {
    let id = value.get("id").unwrap_or(value);
    id.as_str().map_or_else(|| id.to_string(), str::to_owned).to_lowercase()
}

/// A time, though it may come as text.
pub(super) fn time(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The operands, where they are what the field takes.
fn operands(kind: Kind, operator: &str, operand: &Value) -> Option<Vec<Value>> {
    let list = match operand {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let good: fn(&Value) -> bool = match (operator, kind) {
        ("isset" | "isnotset", _) | (_, Kind::Truth) => Value::is_boolean,
        ("range", _) => |one| {
            let time = |name| one.get(name).is_some_and(Value::is_i64);
            time("start") && time("end")
        },
        (_, Kind::Time) => Value::is_i64,
        (_, Kind::Numbers) => Value::is_number,
        (_, Kind::Texts) => |one| one.is_string() || one.is_null(),
        (_, Kind::Entities) => |one| one.get("id").is_some_and(Value::is_string),
    };
    (!list.is_empty() && list.iter().all(good)).then_some(list)
}

/// The first and the last time that an operator lets through.
fn window(operator: &str, operand: &Value, now: i64) -> Option<(i64, i64)> {
    if operator == "range" {
        return Some((operand.get("start")?.as_i64()?, operand.get("end")?.as_i64()?));
    }
    let at = operand.as_i64()?;
    Some(match operator {
        "gte" => (at, i64::MAX),
        "gt" => (at.saturating_add(1), i64::MAX),
        "lte" => (i64::MIN, at),
        "lt" => (i64::MIN, at.saturating_sub(1)),
        // Not longer ago, and longer ago, than so many days.
        "gte_ndays" => (now.saturating_sub(at.saturating_mul(DAY_MS)), i64::MAX),
        "lte_ndays" => (i64::MIN, now.saturating_sub(at.saturating_mul(DAY_MS))),
        _ => (at, at),
    })
}

/// What the portal answers to a filter that it does not know.
fn refusal(name: &str, value: &Value) -> Value {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    json!({
        "filters": [{
            "error": format!("{name}: {shown} is not valid"),
            "errorMessageCode": "CONSOLE_FORMS_NOT_VALID_VALUE",
            "errorMessageParams": {"value": shown},
        }],
        "error": true,
    })
}
