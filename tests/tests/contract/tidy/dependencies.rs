//! Every dependency that a Cargo.toml names is used by the code that it is named for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::root;

const CRATES: [&str; 6] = ["crds", "edge", "forwarder", "operator", "sim", "tests"];

/// The names below a heading of a manifest, up to the next one.
pub(crate) fn names(manifest: &str, heading: &str) -> BTreeSet<String> {
    let section = manifest.lines().skip_while(|line| line.trim() != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with('['));
    let name = |line: &str| Some(line.split_once(['.', ' ', '='])?.0.to_owned());
    section
        .filter(|line| !line.starts_with('#'))
        .filter_map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

/// The text of every Rust file below a folder.
fn code(folder: &Path) -> String {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

/// As a path begins, or as a whole `use`.
fn uses(code: &str, dependency: &str) -> bool {
    // The one whose library has another name.
    let name = if dependency == "rustls-webpki" {
        "webpki".to_owned()
    } else {
        dependency.replace('-', "_")
    };
    let begins_a_name = |at: usize| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':')
    };
    code.match_indices(&name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        begins_a_name(at)
            && (after.starts_with("::") || after.starts_with(';') || after.starts_with(" as "))
    })
}

#[test]
fn every_dependency_is_used() {
    let mut wanted = BTreeSet::new();
    for name in CRATES {
        let folder = root().join(name);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let source = code(&folder.join("src"));
        let tests = code(&folder.join("tests")) + &code(&folder.join("benches"));
        // The crate of tests is used by its own tests.
        let shipped = if name == "tests" { source.clone() + &tests } else { source.clone() };
        let dependencies = names(&manifest, "[dependencies]");
        let for_tests = names(&manifest, "[dev-dependencies]");
        assert!(!dependencies.is_empty(), "{name} depends on something");
        for dependency in &dependencies {
            assert!(uses(&shipped, dependency), "{name} does not use {dependency}");
        }
        for dependency in &for_tests {
            assert!(
                uses(&(source.clone() + &tests), dependency),
                "no test of {name} uses {dependency}"
            );
        }
        wanted.extend(dependencies.into_iter().chain(for_tests));
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for dependency in names(&workspace, "[workspace.dependencies]") {
        assert!(wanted.contains(&dependency), "no crate wants {dependency} of the workspace");
    }
}
