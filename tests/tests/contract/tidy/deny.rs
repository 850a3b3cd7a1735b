//! Every crate of every program, held against `deny.toml`: which may not come in, under which licences, and from where.
//!
//! The same file is `cargo deny`'s. That tool takes many minutes to build, and only its advisories need more than Cargo
//! itself says; so what can be read off `cargo metadata` is tested here, on every machine, and the advisories are asked for
//! by `.ci/advisories`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use toml_edit::{DocumentMut, Item};

use super::{none, root};

/// What `deny.toml` demands.
struct Demands {
    denied: BTreeSet<String>,
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    targets: Vec<String>,
}

fn texts(item: &Item) -> impl Iterator<Item = String> {
    let values = item.as_array().unwrap();
    values.iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>().into_iter()
}

fn demands() -> Demands {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let file: DocumentMut = text.parse().unwrap();
    assert_eq!(file["bans"]["wildcards"].as_str(), Some("deny"));
    for unknown in ["unknown-registry", "unknown-git"] {
        assert_eq!(file["sources"][unknown].as_str(), Some("deny"));
    }
    let denied = file["bans"]["deny"].as_array().unwrap().iter();
    Demands {
        denied: denied
            .map(|entry| entry.as_inline_table().unwrap()["crate"].as_str().unwrap().to_owned())
            .collect(),
        licences: texts(&file["licenses"]["allow"]).collect(),
        registries: texts(&file["sources"]["allow-registry"]).collect(),
        targets: texts(&file["graph"]["targets"]).collect(),
    }
}

/// The packages that are built for any of the targets.
fn packages(targets: &[String]) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--all-features",
    ]);
    cargo.args(targets.iter().flat_map(|target| ["--filter-platform", target]));
    let said = cargo.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let metadata: Value = serde_json::from_slice(&said.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let built: BTreeSet<_> = nodes.iter().map(|node| node["id"].to_string()).collect();
    let mut packages = metadata["packages"].as_array().unwrap().clone();
    packages.retain(|package| built.contains(&package["id"].to_string()));
    packages
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"], package["version"]).replace('"', "")
}

/// Whether a licence expression can be satisfied with these licences; `None` where it is not one.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> Option<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let is = either(&mut rest, allowed)?;
    rest.is_empty().then_some(is)
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is = both(rest, allowed)?;
    while let ["OR", more @ ..] = *rest {
        *rest = more;
        is |= both(rest, allowed)?;
    }
    Some(is)
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is = one(rest, allowed)?;
    while let ["AND", more @ ..] = *rest {
        *rest = more;
        is &= one(rest, allowed)?;
    }
    Some(is)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let is = either(rest, allowed)?;
            let [")", more @ ..] = *rest else { return None };
            *rest = more;
            Some(is)
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, more @ ..] if !["OR", "AND", "WITH", ")"].contains(licence) => {
            *rest = more;
            Some(allowed.contains(*licence))
        }
        _ => None,
    }
}

#[test]
fn every_crate_is_one_that_deny_toml_lets_in() {
    let Demands { denied, licences, registries, targets } = demands();
    let packages = packages(&targets);
    assert!(packages.len() > 100, "{} packages", packages.len());
    let offenders =
        |is: &dyn Fn(&Value) -> bool| packages.iter().filter(|it| is(it)).map(name).collect();
    none("bans.deny", offenders(&|it| denied.contains(it["name"].as_str().unwrap())));
    none(
        "licenses.allow",
        offenders(&|it| {
            satisfied(it["license"].as_str().unwrap_or_default(), &licences) != Some(true)
        }),
    );
    none(
        "sources.allow-registry",
        offenders(&|it| {
            // Without a source it is a folder of this repository.
            let source = it["source"].as_str().map(|source| source.trim_start_matches("registry+"));
            source.is_some_and(|source| !registries.contains(source))
        }),
    );
    none(
        "bans.wildcards",
        offenders(&|it| {
            let dependencies = it["dependencies"].as_array().unwrap().iter();
            it["source"].is_null()
                && dependencies.into_iter().any(|on| on["req"] == "*" && on["path"].is_null())
        }),
    );
}

#[test]
fn a_licence_is_read_as_it_is_written() {
    let allowed: BTreeSet<String> =
        ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("GPL-3.0/MIT", Some(true)),
        ("GPL-3.0 AND MIT", Some(false)),
        ("(GPL-3.0 OR MIT) AND ISC", Some(true)),
        ("GPL-3.0 OR MIT AND Zlib", Some(false)),
        ("Apache-2.0", Some(false)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("OR MIT", None),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}
