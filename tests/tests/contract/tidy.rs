//! The invariants of ARCHITECTURE.md that a machine can check, read off the sources.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

mod modules;
mod circles;
mod pure;
mod deny;
mod dependencies;
mod documents;

use std::fs;
use std::path::{Path, PathBuf};

use siem_agent_crds::condition::Reason;

/// The crates of what ships.
const PRODUCTS: [&str; 4] = ["crds", "edge", "forwarder", "operator"];
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file: its path below the root, and its text without the unit tests at its end.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in [
        "crds/src",
        "crds/tests",
        "edge/src",
        "edge/tests",
        "forwarder/src",
        "forwarder/tests",
        "operator/src",
        "operator/tests",
        "sim/src",
        "sim/tests",
        "tests/src",
        "tests/tests",
    ] {
        walk(&root().join(folder), &mut found);
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
        (path.strip_prefix(root()).unwrap().display().to_string(), code)
    };
    found.into_iter().map(read).collect()
}

fn offenders(of: impl Fn(&str, &str) -> bool) -> Vec<String> {
    sources().into_iter().filter(|(path, text)| of(path, text)).map(|(path, _)| path).collect()
}

#[track_caller]
fn none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}: {offenders:?}");
}

#[test]
fn every_file_says_what_it_is() {
    none("begin with //!", offenders(|_, text| !text.starts_with("//!")));
    none("no mod.rs", offenders(|path, _| path.ends_with("/mod.rs")));
    none("at most 500 lines", offenders(|_, text| text.lines().count() > MAX_LINES));
}

#[test]
fn only_the_transports_make_a_proof_of_delivery() {
    let makes = |text: &str| text.contains("Delivered {") || text.contains("Delivered::confirm(");
    let allowed = [
        "forwarder/src/delivery.rs",
        "forwarder/src/delivery/pending.rs",
        "tests/tests/contract/tidy.rs",
    ];
    none("Delivered", offenders(|path, text| makes(text) && !allowed.contains(&path)));
}

#[test]
fn clocks_and_the_environment_are_read_in_one_place() {
    let clocks = ["Timestamp::now()", "SystemTime::now()"];
    let of_clock =
        |path: &str| path.ends_with("/clock.rs") || path == "tests/tests/contract/tidy.rs";
    none(
        "clock",
        offenders(|path, text| !of_clock(path) && clocks.iter().any(|clock| text.contains(clock))),
    );
    let environment = |text: &str| text.contains("env::var(") || text.contains("env::args");
    let allowed = |path: &str| {
        ["forwarder/src/cli", "operator/src/cli"].iter().any(|cli| path.starts_with(cli))
            || path == "tests/tests/contract/tidy.rs"
    };
    none("environment", offenders(|path, text| !allowed(path) && environment(text)));
}

#[test]
fn only_one_file_spells_a_conditions_reason() {
    let of_the_programs = ["crds/src", "edge/src", "forwarder/src", "operator/src"];
    let spells = |path: &str, text: &str| {
        let of_tests =
            path.contains("/tests") || !of_the_programs.iter().any(|of| path.starts_with(of));
        // A Deployment has a condition whose type is such a word.
        let text = text.replace("condition(\"Progressing\")", "");
        !of_tests
            && path != "crds/src/condition.rs"
            && Reason::ALL.iter().any(|reason| text.contains(&format!("\"{reason}\"")))
    };
    none("reasons are spelled in crds/src/condition.rs", offenders(spells));
}

/// Before anything is read that could be a secret.
#[test]
fn both_programs_forbid_dumps_before_all_else() {
    for path in ["forwarder/src/cli.rs", "operator/src/cli.rs"] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let (_, main) = text.split_once("fn main() -> ExitCode {\n").unwrap();
        let first = main.lines().next().unwrap();
        assert!(first.ends_with("limits::forbid_dumps();"), "{path} begins with {first}");
    }
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let words = ["#[ignore", "todo!(", "unimplemented!(", "dbg!(", "#[allow("];
    none(
        "left undone",
        offenders(|path, text| {
            path != "tests/tests/contract/tidy.rs" && words.iter().any(|word| text.contains(word))
        }),
    );
}

/// The operator catches and counts them; the crates' own profiles are all in one file.
#[test]
fn panics_unwind_in_every_profile() {
    let settings = ["Cargo.toml", ".cargo/config.toml", "images/build"];
    let aborting = settings.into_iter().filter(|path| {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let words: String = text.split_whitespace().collect();
        words.contains("panic=\"abort\"") || words.contains("panic=abort")
    });
    none("panics unwind", aborting.map(str::to_owned).collect());
}

#[test]
fn the_map_of_the_code_names_every_module() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in PRODUCTS {
        for entry in fs::read_dir(root().join(folder).join("src")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let listed = ["lib", "main"].contains(&name.as_str())
                || architecture.contains(&format!("`{name}`"));
            assert!(listed, "ARCHITECTURE.md does not name {name} of {folder}");
        }
    }
    for document in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "SECURITY.md"] {
        assert!(root().join(document).is_file(), "{document} is missing");
    }
}
