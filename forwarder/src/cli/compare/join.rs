//! Which records of one source are which of another, and in what their lines differ. Pure.
//!
//! First by `externalId`; what is left by time, user and name, where the ids differ. A record may be anybody's only once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::event::Event;
use crate::map::{self, Format};
use crate::time::Millis;

/// A record's line, key by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) time: Millis,
    keys: BTreeMap<String, String>,
}

/// Two lines of one event that differ in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) id: String,
    pub(super) one: Option<String>,
    pub(super) other: Option<String>,
}

/// What comes of two windows.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Pairs with the same id.
    pub(super) n_by_id: usize,
    /// Pairs with different ids, and the same time, user and name.
    pub(super) n_by_likeness: usize,
    /// What only the first has.
    pub(super) only_one: Vec<Line>,
    /// What only the second has.
    pub(super) only_other: Vec<Line>,
    /// By key, the pairs that differ in it.
    pub(super) differences: BTreeMap<String, Vec<Difference>>,
}

impl Line {
    pub(super) fn of(event: &Event, format: &Format) -> Self {
        let record = map::record(event, format.dialect, &format.version);
        let header = [
            ("SIGNATURE", record.signature.to_string()),
            ("NAME", record.name.to_string()),
            ("SEVERITY", record.severity.to_string()),
        ];
        let extension = record.extension.iter();
        let extension = extension.map(|field| (field.key, field.value.to_string()));
        let keys = header.into_iter().chain(extension);
        let keys = keys.map(|(key, value)| (key.to_owned(), value)).collect();
        Self { id: event.id().to_owned(), time: event.timestamp(), keys }
    }

    fn key(&self, name: &str) -> &str {
        self.keys.get(name).map(String::as_str).unwrap_or_default()
    }

    /// By what it is known where ids differ.
    fn likeness(&self) -> (Millis, String, String) {
        (self.time, self.key("suser").to_lowercase(), self.key("NAME").to_owned())
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.time).unwrap_or_default();
        format!("{} {time} {} {}", self.id, self.key("NAME"), self.key("suser"))
    }
}

/// Joins two windows. What lies outside `within` is there to find a partner and is missed by nobody.
pub(super) fn join(one: Vec<Line>, other: Vec<Line>, within: (Millis, Millis)) -> Joined {
    let mut joined = Joined::default();
    let (one, other) = joined.pair(one, other, |line| line.id.clone(), true);
    let (one, other) = joined.pair(one, other, Line::likeness, false);
    let (from, to) = within;
    let is_within = |line: &Line| (from..=to).contains(&line.time);
    joined.only_one = one.into_iter().filter(is_within).collect();
    joined.only_other = other.into_iter().filter(is_within).collect();
    joined
}

impl Joined {
    /// Whether every record of each has its line in the other.
    pub(super) fn is_whole(&self) -> bool {
        self.only_one.is_empty() && self.only_other.is_empty()
    }

    /// Pairs what is equal by this; gives what is left.
    fn pair<K: Ord>(
        &mut self,
        one: Vec<Line>,
        other: Vec<Line>,
        by: impl Fn(&Line) -> K,
        is_by_id: bool,
    ) -> (Vec<Line>, Vec<Line>) {
        let mut waiting: BTreeMap<K, VecDeque<Line>> = BTreeMap::new();
        for line in other {
            waiting.entry(by(&line)).or_default().push_back(line);
        }
        let mut left = Vec::new();
        for line in one {
            match waiting.get_mut(&by(&line)).and_then(VecDeque::pop_front) {
                None => left.push(line),
                Some(partner) => {
                    let counted =
                        if is_by_id { &mut self.n_by_id } else { &mut self.n_by_likeness };
                    *counted += 1;
                    self.differ(&line, &partner);
                }
            }
        }
        (left, waiting.into_values().flatten().collect())
    }

    fn differ(&mut self, one: &Line, other: &Line) {
        let keys: BTreeSet<&String> = one.keys.keys().chain(other.keys.keys()).collect();
        for key in keys {
            let values = [one.keys.get(key), other.keys.get(key)].map(Option::<&String>::cloned);
            let [in_one, in_other] = values;
            if in_one != in_other {
                let difference = Difference { id: one.id.clone(), one: in_one, other: in_other };
                self.differences.entry(key.clone()).or_default().push(difference);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, time: Millis, user: &str, more: &[(&str, &str)]) -> Line {
        let own = [("NAME", "Log on"), ("suser", user), ("externalId", id)];
        let keys = own.iter().chain(more);
        let keys = keys.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Line { id: id.to_owned(), time, keys }
    }

    #[test]
    fn records_are_joined_by_id_and_else_by_time_user_and_name() {
        let one = vec![
            line("a", 10, "ada", &[("msg", "x")]),
            line("b", 20, "bob", &[]),
            line("c", 30, "cyd", &[]),
            line("early", 1, "eve", &[]),
        ];
        let other = vec![
            line("a", 10, "ada", &[("msg", "y"), ("cs4", "")]),
            line("other-id", 20, "BOB", &[]),
            line("d", 31, "dan", &[]),
            line("late", 99, "eve", &[]),
        ];
        let joined = join(one, other, (5, 50));
        assert_eq!((joined.n_by_id, joined.n_by_likeness), (1, 1));
        let ids = |lines: &[Line]| lines.iter().map(|line| line.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&joined.only_one), ["c"]);
        assert_eq!(ids(&joined.only_other), ["d"]);
        assert!(!joined.is_whole());
        let differ: Vec<_> = joined.differences.keys().map(String::as_str).collect();
        assert_eq!(differ, ["cs4", "externalId", "msg", "suser"]);
        let msg = &joined.differences["msg"][0];
        assert_eq!((msg.one.as_deref(), msg.other.as_deref()), (Some("x"), Some("y")));
        assert_eq!(joined.differences["cs4"][0].one, None);
    }

    #[test]
    fn a_record_is_anybodys_only_once() {
        let twice = vec![line("a", 10, "ada", &[]), line("b", 10, "ada", &[])];
        let once = vec![line("x", 10, "ada", &[])];
        let joined = join(twice, once, (0, 50));
        assert_eq!((joined.n_by_likeness, joined.only_one.len()), (1, 1));
        assert!(join(Vec::new(), Vec::new(), (0, 1)).is_whole());
    }
}
