//! A page of alerts: the query options that `alerts_v2` has, and what they let through in the order that is asked for.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::tenant::Tenant;
use super::super::xdr::Alert;
use super::odata::{Field, Filter, Operand};
use super::{Body, Refusal};
use siem_agent_crds::report::Stream;
use std::collections::BTreeMap;

/// Alerts a page: unless asked otherwise, and at most.
const PAGE: (usize, usize) = (100, 1_000);
/// How far `$skip` reaches.
const MOST_SKIPPED: usize = 500;
const CONTEXT: &str = "https://graph.microsoft.com/v1.0/$metadata#security/alerts_v2";
const KNOWN: [&str; 6] = ["$filter", "$orderby", "$top", "$skip", "$count", "$skiptoken"];

/// The query options of a request, as they came.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) all: BTreeMap<String, String>,
}

/// An order: fields, each with whether it ascends.
type Order = Vec<(Field, bool)>;
/// Where in the order an alert stands.
type Place = (Vec<Operand>, String);

impl Options {
    pub(super) fn read(query: &str) -> Self {
        Self { all: form_urlencoded::parse(query.as_bytes()).into_owned().collect() }
    }

    /// Whether they ask for what follows another page.
    pub(super) fn continues(&self) -> bool {
        self.get("$skiptoken").is_some() || self.get("$skip").is_some_and(|skip| skip != "0")
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, range: (usize, usize)) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (range.0..=range.1).contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = range;
            Refusal::bad_request(format!(
                "Invalid value '{text}' for {name} query option: it must be from {least} to {most}."
            ))
        })
    }

    fn order(&self) -> Result<Order, Refusal> {
        let Some(text) = self.get("$orderby") else {
            return Ok(vec![(Field::CreatedDateTime, false)]);
        };
        let one = |text: &str| {
            let mut words = text.split_whitespace();
            let field = Field::named(words.next()?)?;
            let ascends = match words.next() {
                None | Some("asc") => true,
                Some("desc") => false,
                Some(_) => return None,
            };
            words.next().is_none().then_some((field, ascends))
        };
        text.split(',').map(one).collect::<Option<_>>().ok_or_else(|| {
            Refusal::bad_request(format!("Invalid $orderby query option: '{text}'."))
        })
    }
}

impl Tenant {
    /// The page that these options ask for, at this URL.
    pub(super) fn alerts_page(
        &self,
        options: &Options,
        url: &str,
        knows_all: bool,
    ) -> Result<Body, Refusal> {
        let unknown = |name: &&String| name.starts_with('$') && !KNOWN.contains(&name.as_str());
        if let Some(name) = options.all.keys().find(unknown) {
            let words = format!("The query specified in the URI is not valid: {name}.");
            return Err(Refusal::bad_request(words));
        }
        let top = options.number("$top", (1, PAGE.1))?.unwrap_or(PAGE.0);
        let skip = options.number("$skip", (0, MOST_SKIPPED))?.unwrap_or(0);
        let counts = match options.get("$count") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let words = format!("Invalid value '{other}' for $count query option.");
                return Err(Refusal::bad_request(words));
            }
        };
        let filter = options.get("$filter").map_or(Ok(Filter::All), Filter::parse);
        let filter = filter.map_err(Refusal::bad_request)?;
        let order = options.order()?;
        let after = match options.get("$skiptoken") {
            None => None,
            Some(token) => Some(
                read_place(token)
                    .ok_or_else(|| Refusal::bad_request("Invalid $skiptoken query option."))?,
            ),
        };
        let now = self.now();
        let visible = self.alerts.iter().filter(|record| record.visible <= now);
        let mut found: Vec<(Place, &Alert)> = visible
            .flat_map(|record| record.derived.alerts(&record.json, record.listed))
            .filter(|alert| filter.passes(&|field| operand(alert, field)))
            .map(|alert| (place(alert, &order), alert))
            .collect();
        found.sort_by(|(one, _), (two, _)| compare(one, two, &order));
        let total = found.len();
        found.retain(|(place, _)| {
            after.as_ref().is_none_or(|after| compare(place, after, &order) == Ordering::Greater)
        });
        let rest = found.get(skip.min(found.len())..).unwrap_or_default();
        let shown = rest.get(..top.min(rest.len())).unwrap_or_default();
        let mut text = format!("{{\"@odata.context\":{}", json!(CONTEXT));
        if counts {
            text.push_str(&format!(",\"@odata.count\":{total}"));
        }
        if let (true, Some((last, _))) = (rest.len() > shown.len(), shown.last()) {
            let kept = options
                .all
                .iter()
                .filter(|(name, _)| !["$skip", "$skiptoken"].contains(&name.as_str()));
            let link = form_urlencoded::Serializer::new(format!("{url}?"))
                .extend_pairs(kept)
                .append_pair("$skiptoken", &write_place(last))
                .finish();
            text.push_str(&format!(",\"@odata.nextLink\":{}", json!(link.replace("?&", "?"))));
        }
        text.push_str(",\"value\":[");
        let mut ids = Vec::new();
        for (_, alert) in shown {
            if !text.ends_with('[') {
                text.push(',');
            }
            text.push_str(&alert.print(knows_all));
            ids.extend(alert.own.clone().map(|id| (text.len(), id)));
        }
        text.push_str("]}");
        Ok(Body { text, ids })
    }

    /// Every alert of the tenant's own.
    pub(in crate::defender) fn own_alerts(&self) -> Vec<String> {
        let alerts =
            self.alerts.iter().filter_map(|it| it.derived.alerts(&it.json, it.listed).first());
        alerts.map(|alert| alert.print(true)).collect()
    }

    /// One alert by its id.
    pub(super) fn alert(&self, id: &str) -> Result<Body, Refusal> {
        let now = self.now();
        let visible = self.records(Stream::Alerts).iter().filter(|record| record.visible <= now);
        let mut alerts =
            visible.flat_map(|record| record.derived.alerts(&record.json, record.listed));
        let found = alerts.find(|alert| alert.text("id") == Some(id));
        let alert = found.ok_or_else(|| Refusal::not_found("Alert not found."))?;
        let text = alert.print(true);
        let ids = alert.own.clone().map(|id| (text.len(), id)).into_iter().collect();
        Ok(Body { text, ids })
    }
}

fn operand(alert: &Alert, field: Field) -> Operand {
    let name = match field {
        Field::CreatedDateTime => return Operand::Time(alert.created),
        Field::LastUpdateDateTime => return Operand::Time(alert.updated),
        Field::Severity => "severity",
        Field::ServiceSource => "serviceSource",
        Field::Status => "status",
        Field::Classification => "classification",
        Field::Determination => "determination",
        Field::AssignedTo => "assignedTo",
    };
    alert.text(name).map_or(Operand::Null, |text| Operand::Text(text.to_owned()))
}

fn place(alert: &Alert, order: &Order) -> Place {
    (order.iter().map(|(field, _)| operand(alert, *field)).collect(), alert.key.clone())
}

/// Equal ones are ordered by id, so that pages neither repeat nor leave out an alert.
fn compare(one: &Place, two: &Place, order: &Order) -> Ordering {
    let pairs = one.0.iter().zip(&two.0).zip(order);
    let of_fields =
        pairs.map(|((one, two), (_, ascends))| if *ascends { one.cmp(two) } else { two.cmp(one) });
    of_fields.fold(Ordering::Equal, Ordering::then).then_with(|| one.1.cmp(&two.1))
}

fn write_place((operands, key): &Place) -> String {
    let operands = operands.iter().map(|operand| match operand {
        Operand::Null => Value::Null,
        Operand::Text(text) => json!(text),
        Operand::Time(at) => json!(at),
    });
    BASE64_URL_SAFE_NO_PAD.encode(json!([operands.collect::<Vec<_>>(), key]).to_string())
}

fn read_place(token: &str) -> Option<Place> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (operands, key): (Vec<Value>, String) = serde_json::from_slice(&bytes).ok()?;
    let operand = |json: Value| match json {
        Value::Null => Some(Operand::Null),
        Value::String(text) => Some(Operand::Text(text)),
        other => other.as_i64().map(Operand::Time),
    };
    Some((operands.into_iter().map(operand).collect::<Option<_>>()?, key))
}
