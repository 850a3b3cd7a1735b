//! Rows of the hunting tables, with the types, nulls and companions that real ones have by turns. Pure.

use serde_json::{Map, Value, json};

use super::super::draw::Draw;
use super::super::kql::{Cell, Fact, Table, Type};
use super::super::ticks::{self, MILLISECOND};
use super::{draw, read, text, time};

/// Activities.
pub(in crate::defender) static CLOUD_APP_EVENTS: Table = Table {
    name: "CloudAppEvents",
    columns: &[
        ("Timestamp", Type::Time),
        ("ActionType", Type::Text),
        ("Application", Type::Text),
        ("ApplicationId", Type::Int),
        ("AppInstanceId", Type::Int),
        ("AccountObjectId", Type::Text),
        ("AccountId", Type::Text),
        ("AccountDisplayName", Type::Text),
        ("IsAdminOperation", Type::Bool),
        ("DeviceType", Type::Text),
        ("OSPlatform", Type::Text),
        ("IPAddress", Type::Text),
        ("IsAnonymousProxy", Type::Bool),
        ("CountryCode", Type::Text),
        ("City", Type::Text),
        ("ISP", Type::Text),
        ("UserAgent", Type::Text),
        ("ActivityType", Type::Text),
        ("ActivityObjects", Type::Dynamic),
        ("ObjectName", Type::Text),
        ("ObjectType", Type::Text),
        ("ObjectId", Type::Text),
        ("ReportId", Type::Text),
        ("AccountType", Type::Text),
        ("IsExternalUser", Type::Bool),
        ("IsImpersonated", Type::Bool),
        ("IPTags", Type::Dynamic),
        ("IPCategory", Type::Text),
        ("UserAgentTags", Type::Dynamic),
        ("RawEventData", Type::Dynamic),
        ("AdditionalFields", Type::Dynamic),
        ("LastSeenForUser", Type::Dynamic),
        ("UncommonForUser", Type::Dynamic),
        ("AuditSource", Type::Text),
        ("SessionData", Type::Dynamic),
        ("OAuthAppId", Type::Text),
    ],
};

/// Sign-ins.
pub(in crate::defender) static IDENTITY_LOGON_EVENTS: Table = Table {
    name: "IdentityLogonEvents",
    columns: &[
        ("Timestamp", Type::Time),
        ("ActionType", Type::Text),
        ("Application", Type::Text),
        ("LogonType", Type::Text),
        ("Protocol", Type::Text),
        ("FailureReason", Type::Text),
        ("AccountName", Type::Text),
        ("AccountDomain", Type::Text),
        ("AccountUpn", Type::Text),
        ("AccountSid", Type::Text),
        ("AccountObjectId", Type::Text),
        ("AccountDisplayName", Type::Text),
        ("DeviceName", Type::Text),
        ("DeviceType", Type::Text),
        ("OSPlatform", Type::Text),
        ("IPAddress", Type::Text),
        ("Port", Type::Int),
        ("DestinationDeviceName", Type::Text),
        ("DestinationIPAddress", Type::Text),
        ("DestinationPort", Type::Int),
        ("TargetDeviceName", Type::Text),
        ("TargetAccountDisplayName", Type::Text),
        ("Location", Type::Text),
        ("ISP", Type::Text),
        ("ReportId", Type::Text),
        ("AdditionalFields", Type::Dynamic),
    ],
};

/// Sign-ins of an on-premises directory, which are no activities of this product.
const ON_PREMISES: &str = "Active Directory";
/// Without these a row is nothing that can be exported, or filtered.
const NEVER_MISSING: [&str; 6] =
    ["Timestamp", "ActionType", "Application", "ApplicationId", "ReportId", "RawEventData"];

/// When a record's row comes to Graph.
#[derive(Debug, Clone, Copy)]
pub(in crate::defender) struct Delay {
    /// By which the portal lists the record, ms.
    pub(in crate::defender) listed: i64,
    /// When the row is ingested, ms.
    pub(in crate::defender) ingested: i64,
    /// How long after its ingestion a row may show up, ms.
    pub(in crate::defender) out_of_order: i64,
}

/// A row of a table.
#[derive(Debug, Clone)]
pub(in crate::defender) struct Entry {
    pub(in crate::defender) table: &'static Table,
    /// The tenant's own id, where it is one of the tenant's.
    pub(in crate::defender) own: Option<String>,
    /// When it happened, in ticks.
    pub(in crate::defender) happened: i64,
    /// From when on queries find it, ms.
    pub(in crate::defender) visible: i64,
    pub(in crate::defender) fact: Fact,
}

/// The row of a record, and by turns one that is no activity of this product.
pub(super) fn make(json: &str, delay: Delay) -> Vec<Entry> {
    let mut draw = draw(json);
    let record = read(json);
    let happened = record.get("timestamp");
    let happened = happened.and_then(|at| at.as_i64().or_else(|| at.as_str()?.parse().ok()));
    let (happened, timestamp) = time(happened.unwrap_or(delay.listed), &mut draw);
    // Half of them share the tick in which they are ingested with others.
    let beyond = if draw.one_in(2) { draw.below(10_000) } else { 0 };
    let ingested = delay.ingested * MILLISECOND + i64::try_from(beyond).unwrap_or(0);
    let behind = if delay.out_of_order > 0 && draw.one_in(20) {
        i64::try_from(draw.next() >> 2).unwrap_or(0) % delay.out_of_order
    } else {
        0
    };
    let visible = delay.ingested + 1 + behind;
    let own = record.get("_id").and_then(Value::as_str).map(str::to_owned);
    let kind = text(&record, "/eventTypeName").unwrap_or_default();
    let is_logon = ["EVENT_CATEGORY_LOGIN", "EVENT_CATEGORY_FAILED_LOGIN"].contains(&kind);
    let (table, mut columns) = if is_logon {
        (&IDENTITY_LOGON_EVENTS, logon(&record, kind, &mut draw))
    } else {
        (&CLOUD_APP_EVENTS, activity(&record, kind, &mut draw))
    };
    columns.insert("Timestamp".to_owned(), json!(timestamp));
    if let Some(id) = &own {
        columns.insert("ReportId".to_owned(), json!(id));
    }
    let fact = fact(table, columns, ingested, &mut draw);
    let mut entries = vec![Entry { table, own, happened, visible, fact }];
    if is_logon && draw.one_in(4) {
        let columns = json!({
            "Timestamp": ticks::print(happened, 7), "ActionType": "LogonSuccess",
            "Application": ON_PREMISES, "LogonType": "Kerberos", "Protocol": "Kerberos",
            "AccountName": "svc", "AccountDomain": "contoso.local", "ReportId": draw.uuid(),
            "DeviceName": "DC1", "Port": 88,
        });
        let Value::Object(columns) = columns else { return entries };
        let fact = self::fact(&IDENTITY_LOGON_EVENTS, columns, ingested, &mut draw);
        let table = &IDENTITY_LOGON_EVENTS;
        entries.push(Entry { table, own: None, happened, visible, fact });
    }
    entries
}

/// A record of a table, loosened as real ones are.
fn fact(
    table: &'static Table,
    mut columns: Map<String, Value>,
    ingested: i64,
    draw: &mut Draw,
) -> Fact {
    let mut companions = Vec::new();
    let mut cells = Vec::new();
    for (index, (name, kind)) in table.columns.iter().enumerate() {
        let mut value = columns.remove(*name);
        if *name != "ReportId" && value.is_none() {
            value = Some(Value::Null);
        }
        if !NEVER_MISSING.contains(name) {
            match draw.below(40) {
                0 => value = Some(Value::Null),
                1 => value = None,
                _ => {}
            }
        }
        match (kind, &value) {
            (Type::Dynamic, Some(inside)) if !inside.is_null() && draw.one_in(4) => {
                value = Some(json!(inside.to_string()));
                companions.push((index, "#String"));
            }
            (Type::Bool, Some(Value::Bool(truth))) if draw.one_in(4) => {
                let number = i32::from(*truth);
                value =
                    Some(if draw.one_in(2) { json!(number) } else { json!(number.to_string()) });
            }
            (Type::Time, _) if draw.one_in(3) => companions.push((index, "#DateTimeOffset")),
            (Type::Bool, _) if draw.one_in(10) => companions.push((index, "#SByte")),
            _ => {}
        }
        cells.push(Cell::new(*kind, value));
    }
    Fact { cells, ingested, companions }
}

/// What the portal's kinds of activities are called here, with the type of the activity and of its object.
fn action(kind: &str) -> (&'static str, &'static str, &'static str) {
    match kind {
        "EVENT_CATEGORY_LOGOUT" => ("UserLoggedOut", "Basic", "User"),
        "EVENT_CATEGORY_DOWNLOAD_FILE" => ("FileDownloaded", "Download", "File"),
        "EVENT_CATEGORY_UPLOAD_FILE" => ("FileUploaded", "Upload", "File"),
        "EVENT_CATEGORY_DELETE_FILE" => ("FileDeleted", "Delete", "File"),
        "EVENT_CATEGORY_RUN_COMMAND" => ("Set-Mailbox", "Run", "Task"),
        "EVENT_CATEGORY_SHARE_FILE" => ("SharingSet", "Share", "File"),
        "EVENT_CATEGORY_CREATE_USER" => ("Add user.", "Create", "User"),
        "EVENT_CATEGORY_ADD_MEMBER_TO_ROLE" => ("Add member to role.", "Add", "Role"),
        "EVENT_CATEGORY_SEND_MAIL" => ("Send", "Send", "Email"),
        _ => ("MailItemsAccessed", "Basic", "Task"),
    }
}

fn activity(record: &Value, kind: &str, draw: &mut Draw) -> Map<String, Value> {
    let (action, activity, object) = action(kind);
    let who = text(record, "/user/userName");
    let target = text(record, "/description_metadata/target_object");
    let id = record.get("_id");
    let columns = json!({
        "ActionType": action, "Application": record.get("appName"), "ApplicationId": record.get("appId"),
        "AppInstanceId": 0, "AccountObjectId": text(record, "/resolvedActor/id"),
        "AccountId": if draw.one_in(2) { who } else { text(record, "/resolvedActor/id") },
        "AccountDisplayName": who, "IsAdminOperation": draw.one_in(5),
        "DeviceType": text(record, "/userAgent/deviceType"), "OSPlatform": "Windows 10",
        "IPAddress": record.pointer("/device/clientIP"), "IsAnonymousProxy": false,
        "CountryCode": text(record, "/location/countryCode"), "City": text(record, "/location/city"),
        "ISP": "Microsoft Corporation", "UserAgent": record.pointer("/device/userAgent"),
        "ActivityType": activity,
        "ActivityObjects": [
            {"Type": "Structured object", "Role": "Parameter", "ServiceObjectType": "Session ID"},
            {"Type": object, "Role": "Target object", "Name": target, "Id": draw.hex(8)},
            {"Type": "Property", "Role": "Parameter", "Name": "MailAccessType", "Value": "Bind"},
            {"Type": "Account", "Role": "Actor", "Name": who, "ApplicationId": 11161, "ApplicationInstance": 0},
        ],
        "ObjectName": target, "ObjectType": object, "ObjectId": null,
        "AccountType": draw.pick(&["Regular", "Admin", "Application"]), "IsExternalUser": false,
        "IsImpersonated": false, "IPTags": ["Microsoft Corporation"],
        "IPCategory": draw.pick(&["Cloud provider", "Corporate", "Risky", ""]), "UserAgentTags": [],
        "RawEventData": {"Id": id, "Operation": action, "UserId": who, "Workload": "Exchange",
            "Raw": record.get("rawDataJson"), "Description": record.get("description")},
        "AdditionalFields": {"IsSatelliteProvider": false},
        "LastSeenForUser": {"ActionType": 0, "ISP": 0}, "UncommonForUser": [],
        "AuditSource": "Defender for Cloud Apps app connector", "SessionData": null, "OAuthAppId": null,
    });
    as_map(columns)
}

fn logon(record: &Value, kind: &str, draw: &mut Draw) -> Map<String, Value> {
    let failed = kind == "EVENT_CATEGORY_FAILED_LOGIN";
    let who = text(record, "/user/userName").or_else(|| text(record, "/failedUserData/userName"));
    let (name, domain) = who.and_then(|who| who.split_once('@')).unzip();
    let app = text(record, "/appName").unwrap_or_default();
    let columns = json!({
        "ActionType": if failed { "LogonFailed" } else { "LogonSuccess" },
        // By that name they would be sign-ins of an on-premises directory.
        "Application": if app == ON_PREMISES { "Microsoft 365" } else { app },
        "LogonType": draw.pick(&["OAuth2:Authorize", "Login:login", "Interactive"]), "Protocol": null,
        "FailureReason": if failed { json!("WrongPassword") } else { Value::Null },
        "AccountName": name, "AccountDomain": domain, "AccountUpn": who, "AccountSid": null,
        "AccountObjectId": text(record, "/resolvedActor/id"), "AccountDisplayName": who,
        "DeviceType": text(record, "/userAgent/deviceType"), "OSPlatform": "Windows 10",
        "IPAddress": record.pointer("/device/clientIP"), "Location": text(record, "/location/countryCode"),
        "ISP": "Microsoft Corporation",
        "AdditionalFields": {"Pass-through authentication": "false", "Request ID": draw.uuid()},
    });
    as_map(columns)
}

fn as_map(columns: Value) -> Map<String, Value> {
    match columns {
        Value::Object(columns) => columns,
        _ => Map::new(),
    }
}
