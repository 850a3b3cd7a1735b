//! What a position of any source remembers of what was delivered: the one thing that another way to the same tenant may
//! know of it. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use siem_agent_crds::position::Position;

use crate::record::RecordKey;
use crate::time::Millis;

/// Where positions of lists and of hunting have their digests.
#[derive(Deserialize, Default)]
struct Digests {
    #[serde(default)]
    seen: Vec<(u64, Millis)>,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    tables: BTreeMap<String, OfTable>,
}

#[derive(Deserialize)]
struct OfTable {
    #[serde(default)]
    seen: Vec<(u64, Millis)>,
}

/// The digests of the ids that a position remembers, with their times: none before the time of the position.
pub fn of(position: &Position, through: Millis) -> Vec<(RecordKey, Millis)> {
    let Digests { seen, ids, tables } = position.read().unwrap_or_default();
    let of_tables = tables.into_values().flat_map(|table| table.seen);
    let ids = ids.iter().filter_map(|id| u64::from_str_radix(id, 16).ok());
    let ids = ids.map(|bits| (bits, through));
    let digests = seen.into_iter().chain(of_tables).chain(ids);
    digests.map(|(bits, time)| (RecordKey::from_bits(bits), time.max(through))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_of_every_form_are_found() {
        for text in [
            r#"{"version":1,"seen":[[5,900]],"ids":["0000000000000006"]}"#,
            r#"{"version":1,"tables":{"A":{"live":{"ticks":1},"through":1,"seen":[[5,1]]},"B":{"seen":[[6,1]]}}}"#,
        ] {
            let position: Position = serde_json::from_str(text).unwrap();
            let of_five = if text.contains("900") { 900 } else { 500 };
            let expected =
                [(5, of_five), (6, 500)].map(|(bits, at)| (RecordKey::from_bits(bits), at));
            assert_eq!(of(&position, 500), expected, "{text}");
        }
        assert_eq!(of(&Position::default(), 0), []);
    }
}
