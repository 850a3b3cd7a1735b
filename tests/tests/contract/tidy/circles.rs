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

/// The uses at one place: a node is a module of the folder, or the place's own file (an empty name), with one of the files
/// that uses and one that is used.
type Place = BTreeMap<String, BTreeMap<String, (Name, Name)>>;

fn places(modules: &Modules) -> BTreeMap<Name, Place> {
    let mut places: BTreeMap<Name, Place> = BTreeMap::new();
    for (from, used) in modules.uses() {
        for to in used {
            let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
            let node = |name: &Name| name.get(common).cloned().unwrap_or_default();
            let is_own = to.len() == common && !modules.all[&from[..=common]].is_public;
            if !is_own {
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
fn circles(modules: &Modules) -> BTreeSet<String> {
    let file = |name: &Name| modules.all[name].file.clone();
    let mut found = BTreeSet::new();
    for place in places(modules).values() {
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
    let mut found = BTreeSet::new();
    for package in PRODUCTS {
        found.extend(circles(&Modules::read(&root(), package)));
    }
    assert!(found.is_empty(), "circles: {found:#?}");
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
    assert_eq!(circles(&modules), [circle.to_owned()].into());
}
