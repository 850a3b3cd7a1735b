//! The lines that `check` prints for what is broken, in one file that is read as a whole: `check-lines.golden`.
//!
//! A case is a line `# its name` with the lines below it, in the order of names. `UPDATE_EXPECT=1` rewrites the cases that
//! the tests show; a case that no test shows any more is removed by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use siem_agent_tests::program::Ended;

/// Tests of one process show their cases at the same time.
static FILE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forwarder/settings/check-lines.golden")
}

fn cases(text: &str) -> BTreeMap<String, String> {
    let sections = text.split("\n# ").map(|section| section.trim_start_matches("# "));
    let pairs = sections.filter_map(|section| section.split_once('\n'));
    pairs.map(|(name, lines)| (name.to_owned(), lines.trim_end().to_owned())).collect()
}

/// Holds what failed against the golden lines of this case; `folder` is written as DIR, ports as PORT, times as TIME.
#[track_caller]
pub(crate) fn lines_are(case: &str, ended: &Ended, folder: &Path) {
    let failed = ended.out.lines().chain(ended.err.lines());
    let failed =
        failed.filter(|line| line.starts_with("FAIL ") || line.starts_with("siem-forwarder: "));
    let told: Vec<String> = failed.map(|line| plain(line, folder)).collect();
    let told = told.join("\n");
    assert!(!told.is_empty(), "{case}: nothing failed: {}{}", ended.out, ended.err);
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut golden = cases(&fs::read_to_string(path()).unwrap_or_default());
    if updates() {
        golden.insert(case.to_owned(), told);
        let sections = golden.iter().map(|(name, lines)| format!("# {name}\n{lines}\n"));
        fs::write(path(), sections.collect::<Vec<_>>().join("\n")).unwrap();
        return;
    }
    let expected = golden.get(case).map_or("", String::as_str);
    assert_eq!(told, expected, "{case}: UPDATE_EXPECT=1 rewrites check-lines.golden");
}

#[expect(clippy::disallowed_methods, reason = "the switch of every golden test")]
fn updates() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

fn plain(line: &str, folder: &Path) -> String {
    let line = line.replace(&folder.display().to_string(), "DIR");
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let bare = word.trim_end_matches([';', ',', '.', ':']);
        let rest = &word[bare.len()..];
        let is_port = words.last().is_some_and(|last| last == "port");
        words.push(match bare.rsplit_once(':') {
            _ if bare.parse::<jiff::Timestamp>().is_ok() => format!("TIME{rest}"),
            None if is_port && bare.parse::<u16>().is_ok() => format!("PORT{rest}"),
            Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}:PORT{rest}"),
            _ => word.to_owned(),
        });
    }
    words.join(" ")
}
