//! No circle between files.
//!
//! The rule: a file uses another where its code names an item of it (`modules` says what counts). A module's folder is its
//! own affair, so a use is looked at where the two files' folders part: `sink/session.rs` that uses `source/error.rs` is
//! `sink` that uses `source`. At each such place, a crate's root or a file with a folder, these stand in no circle: the
//! folder's modules, each with all that is below it, and the file itself.
//! A private module (`mod`, without `pub`) is a part of its parent's file that has a file of its own. What it uses of its
//! parent is therefore no use; but its parent's other modules stand in no circle with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::modules::{Modules, Name};
use super::{PRODUCTS, root};

/// Uses that still close a circle: the file, what it uses, and why. The list may only become shorter.
const KNOWN: [(&str, &str, &str); 10] = [
    (
        "forwarder/src/tls/untrusted.rs",
        "forwarder/src/tls/fault.rs",
        "the side at fault is named beside the faults",
    ),
    (
        "operator/src/release.rs",
        "operator/src/reconcile/validate.rs",
        "a release is read off what is built",
    ),
    (
        "operator/src/observed_object.rs",
        "operator/src/checkpoint/decide.rs",
        "what a checkpoint says is the folder's pure half, its writer the edge",
    ),
    (
        "operator/src/trim.rs",
        "operator/src/checkpoint/decide.rs",
        "what a checkpoint says is the folder's pure half, its writer the edge",
    ),
    (
        "operator/src/context.rs",
        "operator/src/checkpoint.rs",
        "the context holds the line of those that wait",
    ),
    (
        "operator/src/forwarders/poll.rs",
        "operator/src/checkpoint/writer.rs",
        "a report that was read is offered to the writer",
    ),
    ("operator/src/trim.rs", "operator/src/apply/drift.rs", "digests are the folder's pure half"),
    (
        "operator/src/rollouts.rs",
        "operator/src/reconcile/observed.rs",
        "a roll-out is judged by what a reconcile observed",
    ),
    (
        "operator/src/forwarders/poll.rs",
        "operator/src/context.rs",
        "who asks needs the context, which holds what was answered",
    ),
    (
        "operator/src/release.rs",
        "operator/src/reconcile/build.rs",
        "a release is read off what is built",
    ),
];

/// The uses at one place: a node is a module of the folder, or the place's own file (an empty name), with one of the files
/// that uses and one that is used.
type Place = BTreeMap<String, BTreeMap<String, (Name, Name)>>;

fn places(modules: &Modules, left_out: &[(&str, &str, &str)]) -> BTreeMap<Name, Place> {
    let mut places: BTreeMap<Name, Place> = BTreeMap::new();
    for (from, used) in modules.uses() {
        for to in used {
            let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
            let node = |name: &Name| name.get(common).cloned().unwrap_or_default();
            let is_own = to.len() == common && !modules.all[&from[..=common]].is_public;
            let files = [&from, &to].map(|name| modules.all[name].file.as_str());
            let is_known = left_out.iter().any(|(from, to, _)| files == [*from, *to]);
            if !is_own && !is_known {
                let place = places.entry(from[..common].to_vec()).or_default();
                place
                    .entry(node(&from))
                    .or_default()
                    .entry(node(&to))
                    .or_insert_with(|| (from.clone(), to));
            }
        }
    }
    places
}

/// The shortest way from a node back to it.
fn circle(place: &Place, start: &str) -> Option<Vec<(Name, Name)>> {
    let mut ways: Vec<(&str, Vec<_>)> = vec![(start, Vec::new())];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for (at, way) in ways {
            for (to, by) in place.get(at).into_iter().flatten() {
                let mut way = way.clone();
                way.push(by.clone());
                if to == start {
                    return Some(way);
                }
                if seen.insert(to) {
                    longer.push((to.as_str(), way));
                }
            }
        }
        ways = longer;
    }
    None
}

/// The shortest circle through each node, as a path of files from the first in the alphabet.
fn circles(modules: &Modules, left_out: &[(&str, &str, &str)]) -> BTreeSet<String> {
    let file = |name: &Name| modules.all[name].file.clone();
    let mut found = BTreeSet::new();
    for place in places(modules, left_out).values() {
        for mut way in place.keys().filter_map(|start| circle(place, start)) {
            let first = (0..way.len()).min_by_key(|at| file(&way[*at].0)).unwrap_or_default();
            way.rotate_left(first);
            let uses = way.iter().map(|(from, to)| format!("{} uses {}", file(from), file(to)));
            found.insert(uses.collect::<Vec<_>>().join(", "));
        }
    }
    found
}

#[test]
fn files_use_each_other_in_no_circle() {
    let mut stale = KNOWN.to_vec();
    let mut found = BTreeSet::new();
    for package in PRODUCTS {
        let modules = Modules::read(&root(), package);
        found.extend(circles(&modules, &KNOWN));
        // With this one alone there is a circle, or it need not be listed.
        stale.retain(|known| {
            let others: Vec<_> = KNOWN.into_iter().filter(|other| other != known).collect();
            circles(&modules, &others).is_empty()
        });
    }
    assert!(found.is_empty(), "circles: {found:#?}");
    assert!(stale.is_empty(), "these close no circle any more: {stale:#?}");
}

#[test]
fn a_circle_is_found_through_a_re_export_and_not_in_texts_or_tests() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join("made_up/src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("lib.rs", "pub mod one;\npub mod two;\npub mod three;\n");
    file("one.rs", "mod inside;\npub use inside::Inside;\nfn f() -> crate::two::Two {}\n");
    file("one/inside.rs", "pub struct Inside;\nuse super::f as g;\n");
    file("two.rs", "use crate::{three, one::Inside};\npub struct Two(three::Three);\n");
    file(
        "three.rs",
        "// crate::one::f\npub(in crate::one) struct Three;\nconst A: &str = \"crate::two::Two \\\" \";\n\
         const B: &str = r#\"crate::two::Two\"#;\nconst C: [char; 2] = ['\"', '\\''];\n\
         #[cfg(test)]\nmod tests {\n    use crate::two::Two;\n}\n",
    );
    let modules = Modules::read(folder.path(), "made_up");
    let circle = "made_up/src/one.rs uses made_up/src/two.rs, made_up/src/two.rs uses made_up/src/one/inside.rs";
    assert_eq!(circles(&modules, &[]), [circle.to_owned()].into());
    let known = [("made_up/src/one.rs", "made_up/src/two.rs", "made up")];
    assert_eq!(circles(&modules, &known), BTreeSet::new());
}
