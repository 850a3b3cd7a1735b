//! Durations as Kubernetes writes them: `4s`, `5m`, `1h30m`, `250ms` (Go's `time.ParseDuration`, whole numbers only).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the schema and the rules accept: one or more numbers with a unit.
pub const PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h))+$";

/// A duration written in Go's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration such as 4s, 5m, 1h30m or 250ms")]
pub struct Error(String);

impl GoDuration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl FromStr for GoDuration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error(text.to_owned());
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let n_digits = rest.find(|char: char| !char.is_ascii_digit()).ok_or_else(malformed)?;
            let (digits, tail) = rest.split_at(n_digits);
            let number: u64 = digits.parse().map_err(|_not_a_number| malformed())?;
            let (millis, tail) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
                .iter()
                .find_map(|(unit, millis)| tail.strip_prefix(unit).map(|tail| (millis, tail)))
                .ok_or_else(malformed)?;
            let part = number.checked_mul(*millis).ok_or_else(malformed)?;
            total = total.checked_add(Duration::from_millis(part)).ok_or_else(malformed)?;
            rest = tail;
        }
        if text.is_empty() { Err(malformed()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return formatter.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(formatter, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, millis) in
            [("4s", 4_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("48h", 172_800_000)]
        {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.0.as_millis(), millis);
            assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }
        for text in ["", "5", "s", "5 s", "1.5h", "-1s", "5x", "99999999999999999999h"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
