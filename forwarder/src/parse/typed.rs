//! The quick way to read a record: in one pass, as types. What it cannot read goes the patient way, by name.
//!
//! It must never read a record otherwise than the patient way does: where keys come twice, or a number is beyond all
//! measure, it gives up and decides nothing.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Room for as many elements as most lists of a record have.
const FEW: usize = 8;

/// A text or a number, as it stands.
type Raw<'a> = Option<&'a RawValue>;

/// An activity's fields.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Activity<'a> {
    #[serde(rename = "_id", borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) timestamp: Raw<'a>,
    #[serde(borrow)]
    pub(super) created: Raw<'a>,
    #[serde(rename = "eventTypeName", borrow)]
    pub(super) kind: Raw<'a>,
    #[serde(rename = "description_metadata", borrow)]
    pub(super) metadata: Loose<Metadata<'a>>,
    #[serde(borrow)]
    pub(super) description: Raw<'a>,
    #[serde(borrow)]
    pub(super) user: Loose<User<'a>>,
    #[serde(rename = "failedUserData", borrow)]
    pub(super) failed_user: Loose<User<'a>>,
    #[serde(rename = "resolvedActor", borrow)]
    pub(super) actor: Loose<Actor<'a>>,
    #[serde(rename = "appName", borrow)]
    pub(super) app_name: Raw<'a>,
    #[serde(rename = "appId", borrow)]
    pub(super) app_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) device: Loose<Device<'a>>,
    #[serde(rename = "mainInfo", borrow)]
    pub(super) main: Loose<Main<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) event_category: Raw<'a>,
    #[serde(borrow)]
    pub(super) operation_name: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct User<'a> {
    #[serde(rename = "userName", borrow)]
    pub(super) name: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Actor<'a> {
    #[serde(borrow)]
    pub(super) name: Raw<'a>,
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Device<'a> {
    #[serde(rename = "clientIP", borrow)]
    pub(super) client_ip: Raw<'a>,
    #[serde(rename = "userAgent", borrow)]
    pub(super) user_agent: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Main<'a> {
    #[serde(rename = "eventObjects", borrow)]
    pub(super) objects: Many<Loose<Object<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Object<'a> {
    #[serde(borrow)]
    pub(super) name: Raw<'a>,
}

/// An alert's fields.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Alert<'a> {
    #[serde(rename = "_id", borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) timestamp: Raw<'a>,
    #[serde(rename = "idValue", borrow)]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) policy: Loose<Policy<'a>>,
    #[serde(borrow)]
    pub(super) title: Raw<'a>,
    #[serde(borrow)]
    pub(super) description: Raw<'a>,
    #[serde(rename = "severityValue", borrow)]
    pub(super) severity: Raw<'a>,
    #[serde(rename = "threatScore", borrow)]
    pub(super) score: Raw<'a>,
    #[serde(rename = "URL", borrow)]
    pub(super) url: Raw<'a>,
    #[serde(borrow)]
    pub(super) audits: Many<Raw<'a>>,
    #[serde(borrow)]
    pub(super) entities: Many<Loose<Entity<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Policy<'a> {
    #[serde(rename = "policyType", borrow)]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) label: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Entity<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) label: Raw<'a>,
    #[serde(rename = "pa", borrow)]
    pub(super) primary_address: Raw<'a>,
    #[serde(rename = "em", borrow)]
    pub(super) email: Raw<'a>,
    #[serde(rename = "policyType", borrow)]
    pub(super) policy_type: Raw<'a>,
}

/// Reads an object; `None` when only the patient way can.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    // An array would be taken for the fields in their order.
    json.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(json).ok())?
}

/// An object; nothing of it when the JSON holds something else.
#[derive(Default)]
pub(super) struct Loose<T>(pub(super) T);

/// The elements of an array; none when the JSON holds something else.
#[derive(Default)]
pub(super) struct Many<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData)).map(Loose)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor(PhantomData)).map(Many)
    }
}

struct LooseVisitor<T>(PhantomData<T>);
struct ManyVisitor<T>(PhantomData<T>);

/// What is neither an object nor an array is nothing.
macro_rules! scalars_are_nothing {
    () => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("any JSON")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for LooseVisitor<T> {
    type Value = T;

    scalars_are_nothing!();

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<T, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
    type Value = Vec<T>;

    scalars_are_nothing!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::with_capacity(FEW);
        while let Some(element) = elements.next_element()? {
            found.push(element);
        }
        Ok(found)
    }
}
