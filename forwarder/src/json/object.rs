//! Known fields of an object, read in one pass as deep as they lie. Pure.
//!
//! As everywhere in this JSON, a value of another kind than an object is an object without fields, of keys that come twice
//! the last one counts, and keys that are not named are skipped without being built.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Key;

/// A value in its own JSON.
pub(crate) type Raw<'a> = Option<&'a RawValue>;

/// An object with named fields; `object!` writes it.
pub(crate) trait Object<'de>: Default {
    /// Takes the value of this key, or passes it over.
    ///
    /// # Errors
    /// The deserializer's.
    fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Declares a struct of fields, each after the key that it has in the JSON.
macro_rules! object {
    ($(#[$about:meta])* $name:ident { $($key:literal => $field:ident: $kind:ty,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: $kind,)+
        }

        impl<'a> $crate::json::object::Object<'a> for $name<'a> {
            fn take<A: serde::de::MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
                match key {
                    $($key => self.$field = map.next_value()?,)+
                    _ => {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(())
            }
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::object::read(deserializer)
            }
        }
    };
}
pub(crate) use object;

/// The elements of an array; none where the JSON holds something else.
#[derive(Debug)]
pub(crate) struct Many<T>(pub(crate) Vec<T>);

/// What a column of any content holds: its JSON, or a text that holds JSON.
#[derive(Debug)]
pub(crate) enum Dynamic<T> {
    /// The JSON, read in the same pass.
    Read(T),
    /// The text.
    Text(String),
}

/// Room for as many elements as most lists of a record have.
const FEW: usize = 8;

/// Reads an object from whatever stands there.
///
/// # Errors
/// The deserializer's, where there is no JSON, or a number beyond all measure in the place of an object.
pub(crate) fn read<'de, D: Deserializer<'de>, T: Object<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectVisitor(PhantomData))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor(PhantomData))
    }
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Dynamic<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DynamicVisitor(PhantomData))
    }
}

impl<T: Default> Default for Dynamic<T> {
    fn default() -> Self {
        Self::Read(T::default())
    }
}

struct ObjectVisitor<T>(PhantomData<T>);
struct ManyVisitor<T>(PhantomData<T>);
struct DynamicVisitor<T>(PhantomData<T>);

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
    };
    (and_texts) => {
        scalars_are_nothing!();
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

impl<'de, T: Object<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    scalars_are_nothing!(and_texts);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            object.take(&key.0, &mut map)?;
        }
        Ok(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<T, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
    type Value = Many<T>;

    scalars_are_nothing!(and_texts);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Many<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Many::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Many<T>, A::Error> {
        let mut found = Vec::with_capacity(FEW);
        while let Some(element) = elements.next_element()? {
            found.push(element);
        }
        Ok(Many(found))
    }
}

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for DynamicVisitor<T> {
    type Value = Dynamic<T>;

    scalars_are_nothing!();

    fn visit_str<E>(self, text: &str) -> Result<Dynamic<T>, E> {
        Ok(Dynamic::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dynamic<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Dynamic::Read)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Dynamic<T>, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(elements)).map(Dynamic::Read)
    }
}
