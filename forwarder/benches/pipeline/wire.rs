//! The API's records as types, whole: what a program that only reads them would declare.
//!
//! It is the measure of the pipeline, chosen not to flatter it: texts are borrowed from the body wherever they hold no
//! escape, what is open to any content is kept unread, and nothing is checked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

type Text<'a> = Cow<'a, str>;

/// A page of either stream.
#[derive(Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    #[serde(rename = "hasNext")]
    _has_next: bool,
}

/// Fields that are there to be read, as any consumer of the API has them.
macro_rules! wire {
    ($(#[$note:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$note])*
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[expect(dead_code, reason = "what is measured is reading the fields, not using them")]
        pub(crate) struct $name<'a> {
            $($(#[$attribute])* $field: $kind,)*
            #[serde(skip)]
            lifetime: std::marker::PhantomData<&'a ()>,
        }
    };
}

wire!(
    /// An activity.
    Activity {
        #[serde(rename = "_id", borrow)] id: Text<'a>,
        tenant_id: u64,
        #[serde(borrow)] aad_tenant_id: Text<'a>,
        app_id: u64,
        saas_id: u64,
        #[serde(borrow)] app_name: Text<'a>,
        timestamp: i64,
        timestamp_raw: i64,
        instantiation: i64,
        instantiation_raw: i64,
        created: i64,
        created_raw: i64,
        event_type: u64,
        #[serde(borrow)] event_type_value: Text<'a>,
        #[serde(borrow)] event_type_name: Text<'a>,
        #[serde(borrow)] event_routing: Routing<'a>,
        #[serde(borrow)] device: Device<'a>,
        #[serde(borrow)] location: Location<'a>,
        #[serde(borrow)] user: User<'a>,
        #[serde(borrow)] user_agent: UserAgent<'a>,
        #[serde(borrow)] internals: Internals<'a>,
        #[serde(borrow)] main_info: MainInfo<'a>,
        confidence_level: u64,
        source: u64,
        src_app_id: u64,
        #[serde(borrow)] raw_data_json: &'a RawValue,
        #[serde(borrow)] resolved_actor: Actor<'a>,
        #[serde(borrow)] uid: Text<'a>,
        #[serde(borrow)] classifications: Vec<Text<'a>>,
        #[serde(borrow)] entity_data: BTreeMap<Text<'a>, Option<EntityData<'a>>>,
        #[serde(rename = "description_id", borrow)] description_id: Text<'a>,
        #[serde(rename = "description_metadata", borrow)] description_metadata: Metadata<'a>,
        #[serde(borrow)] description: Text<'a>,
        #[serde(borrow)] generic_event_type: Text<'a>,
        #[serde(borrow)] severity: Text<'a>,
    }
);

wire!(Routing { scuba_unpacker: bool, lograbber: bool, auditing: bool });

wire!(Metadata {
    #[serde(rename = "event_category", borrow)]
    event_category: Text<'a>,
    #[serde(rename = "target_object", borrow)]
    target_object: Text<'a>,
    #[serde(borrow)]
    colon: Text<'a>,
    #[serde(borrow)]
    dash: Text<'a>,
});

wire!(Device {
    #[serde(rename = "clientIP", borrow)] client_ip: Text<'a>,
    #[serde(borrow)] user_agent: Text<'a>,
    #[serde(borrow)] country_code: Text<'a>,
});

wire!(Location {
    #[serde(borrow)] country_code: Text<'a>,
    #[serde(borrow)] city: Text<'a>,
    #[serde(borrow)] region: Text<'a>,
    longitude: f64,
    latitude: f64,
    anonymous_proxy: bool,
    category: u64,
    #[serde(borrow)] category_value: Text<'a>,
});

wire!(User {
    #[serde(borrow)] user_name: Text<'a>,
    #[serde(borrow)] user_tags: Vec<Text<'a>>,
});

wire!(UserAgent {
    #[serde(borrow)] family: Text<'a>,
    #[serde(borrow)] name: Text<'a>,
    #[serde(borrow)] operating_system: OperatingSystem<'a>,
    #[serde(rename = "type", borrow)] kind: Text<'a>,
    #[serde(borrow)] type_name: Text<'a>,
    #[serde(borrow)] device_type: Text<'a>,
    native_browser: bool,
    #[serde(borrow)] os: Text<'a>,
    #[serde(borrow)] browser: Text<'a>,
});

wire!(OperatingSystem {
    #[serde(borrow)] name: Text<'a>,
    #[serde(borrow)] family: Text<'a>,
});

wire!(Internals {
    #[serde(rename = "otherIPs", borrow)] other_ips: Vec<Text<'a>>,
});

wire!(MainInfo {
    #[serde(borrow)] event_objects: Vec<EventObject<'a>>,
    #[serde(borrow)] raw_operation_name: Text<'a>,
    #[serde(rename = "type", borrow)] kind: Text<'a>,
});

wire!(EventObject {
    obj_type: u64,
    role: u64,
    #[serde(borrow)] tags: Vec<Text<'a>>,
    #[serde(borrow)] name: Text<'a>,
    #[serde(borrow)] id: Text<'a>,
    instance_id: Option<u64>,
    resolved: Option<bool>,
    saas_id: Option<u64>,
    link: Option<i64>,
});

wire!(Actor {
    #[serde(borrow)] id: Text<'a>,
    #[serde(borrow)] saas_id: Text<'a>,
    #[serde(borrow)] instance_id: Text<'a>,
    #[serde(borrow)] name: Text<'a>,
    #[serde(borrow)] role: Text<'a>,
    resolved: bool,
});

wire!(EntityData {
    #[serde(borrow)] display_name: Text<'a>,
    #[serde(borrow)] id: EntityId<'a>,
    resolved: bool,
});

wire!(EntityId {
    #[serde(borrow)] id: Text<'a>,
    saas: u64,
    inst: u64,
});

wire!(
    /// An alert.
    Alert {
        #[serde(rename = "_id", borrow)] id: Text<'a>,
        #[serde(borrow)] context_id: Text<'a>,
        timestamp: i64,
        #[serde(borrow)] title: Text<'a>,
        #[serde(borrow)] description: Text<'a>,
        #[serde(borrow)] entities: Vec<Entity<'a>>,
        #[serde(borrow)] audits: Vec<Text<'a>>,
        id_value: u64,
        is_system_alert: bool,
        resolution_status_value: u64,
        severity_value: u64,
        status_value: u64,
        stories: Vec<u64>,
        intent: Vec<u64>,
        threat_score: Option<u64>,
        #[serde(borrow)] comment: Text<'a>,
        #[serde(borrow)] handled_by_user: Option<Text<'a>>,
        #[serde(rename = "URL", borrow)] url: Text<'a>,
    }
);

wire!(Entity {
    #[serde(borrow)] id: &'a RawValue,
    #[serde(borrow)] label: Text<'a>,
    #[serde(rename = "type", borrow)] kind: Text<'a>,
    #[serde(borrow, default)] policy_type: Option<Text<'a>>,
    #[serde(borrow, default)] pa: Option<Text<'a>>,
    #[serde(borrow, default)] em: Option<Text<'a>>,
    inst: Option<u64>,
    saas: Option<u64>,
    entity_type: Option<u64>,
});
