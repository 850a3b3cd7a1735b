//! The documents: every link leads somewhere, every page can be found, and one version stands everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{PRODUCTS, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What images are named by.
const IMAGES: &str = "ghcr.io/siem-agent-operator/siem-";

/// Every file of the repository that ends so, by its path below the root.
fn files(endings: &[&str]) -> BTreeSet<PathBuf> {
    fn walk(folder: &Path, below: &Path, endings: &[&str], found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = below.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if name != ".git" && name != "target" && name != "node_modules" {
                    walk(&entry.path(), &path, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.insert(path);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root(), Path::new(""), endings, &mut found);
    found
}

struct Page {
    /// Where its links lead: a path below the root, and an anchor.
    links: Vec<(PathBuf, Option<String>)>,
    /// The anchors of its headings, as GitHub makes them.
    anchors: BTreeSet<String>,
}

fn page(path: &Path) -> Page {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let mut page = Page { links: Vec::new(), anchors: BTreeSet::new() };
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. })
                if !dest_url.contains(':') =>
            {
                page.links.push(target(path, &dest_url));
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let mut unique = anchor.clone();
                for n in 1.. {
                    if page.anchors.insert(unique) {
                        break;
                    }
                    unique = format!("{anchor}-{n}");
                }
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

fn anchor(heading: &str) -> String {
    let keep = |char: &char| char.is_alphanumeric() || " -_".contains(*char);
    heading.to_lowercase().chars().filter(keep).collect::<String>().replace(' ', "-")
}

/// The path below the root and the anchor of a link on a page.
fn target(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (link, None),
    };
    if file.is_empty() {
        return (page.to_owned(), anchor);
    }
    let mut path = page.parent().unwrap().to_owned();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => assert!(path.pop(), "{} leaves the repository: {link}", page.display()),
            part => path.push(part),
        }
    }
    (path, anchor)
}

fn pages() -> BTreeMap<PathBuf, Page> {
    files(&[".md"]).into_iter().map(|path| (path.clone(), page(&path))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    for (path, page) in &pages {
        for (to, anchor) in &page.links {
            let name = format!("{}: {} {anchor:?}", path.display(), to.display());
            if !root().join(to).exists() {
                dead.push(name);
            } else if let (Some(anchor), Some(page)) = (anchor, pages.get(to))
                && !page.anchors.contains(anchor)
            {
                dead.push(name);
            }
        }
    }
    assert!(dead.is_empty(), "these lead nowhere: {dead:#?}");
    let n_links: usize = pages.values().map(|page| page.links.len()).sum();
    assert!(n_links > 20, "the links are found: {n_links}");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let mut reached = BTreeSet::new();
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(path) = next.pop() {
        if let Some(page) = pages.get(&path)
            && reached.insert(path)
        {
            next.extend(page.links.iter().map(|(to, _)| to.clone()));
        }
    }
    let lost: Vec<_> = pages.keys().filter(|path| !reached.contains(*path)).collect();
    assert!(lost.is_empty(), "no link leads from README.md to {lost:?}");
}

const TESTS: [&str; 2] = ["tests/tests", "sim/tests"];

/// The binaries of tests, and their modules.
fn test_modules() -> BTreeSet<String> {
    let entries = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let binaries: Vec<_> = TESTS.iter().flat_map(|folder| entries(&root().join(folder))).collect();
    let modules = binaries.iter().flat_map(|binary| entries(binary));
    let all = modules.chain(binaries.iter().cloned());
    all.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_test_that_a_text_has_people_run_is_there() {
    let modules = test_modules();
    let mut n_seen = 0;
    let mut texts = files(&[".md"]);
    texts.extend([".ci/advisories", "tests/run", "tests/lanes"].map(PathBuf::from));
    for path in texts {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for command in text.split("--test ").skip(1) {
            let names = command.split(['`', '\n']).next().unwrap().split_whitespace();
            let mut names = names.take_while(|word| *word != "--");
            let binary = names.next().unwrap();
            let file = format!("{binary}.rs");
            let is_of_a_product =
                PRODUCTS.iter().any(|it| root().join(it).join("tests").join(&file).is_file());
            assert!(
                is_of_a_product || TESTS.iter().any(|it| root().join(it).join(binary).is_dir()),
                "{} names the tests {binary}, which are not there",
                path.display()
            );
            for module in names {
                assert!(modules.contains(module), "{} names {module}", path.display());
            }
            n_seen += 1;
        }
    }
    assert!(n_seen > 4, "the commands are found");
}

#[test]
fn every_promise_of_the_security_page_names_a_test_that_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, promises) = page.split_once("## Promises").expect("a section of promises");
    let (promises, _) = promises.split_once("\n## ").expect("a section after it");
    let sources: String = files(&[".rs"])
        .into_iter()
        .map(|path| fs::read_to_string(root().join(path)).unwrap())
        .collect();
    let modules = test_modules();
    let rows = promises.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut n_rows = 0;
    for row in rows {
        n_rows += 1;
        let tests: Vec<_> =
            row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            assert!(
                modules.contains(test) || sources.contains(&format!("fn {test}(")),
                "there is no test {test}"
            );
        }
    }
    assert!(n_rows > 8, "{n_rows} promises are found");
}

/// The figure of merit of the house: how few places these are.
#[test]
fn every_place_that_an_addition_touches_is_there() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let sections: Vec<_> = page.split("\n## What a new ").skip(1).collect();
    assert_eq!(sections.len(), 3, "a source, a target and a stream table");
    for section in sections {
        let section = section.split("\n## ").next().unwrap();
        let paths = section.split('`').skip(1).step_by(2).filter(|code| code.contains('/'));
        let paths: Vec<_> = paths.collect();
        assert!(paths.len() > 4, "paths of {section}");
        for path in paths {
            assert!(root().join(path).exists(), "CONTRIBUTING.md names {path}, which is not there");
        }
    }
}

#[test]
fn one_version_stands_everywhere() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## ")).unwrap();
    let newest = newest.split_whitespace().next().unwrap();
    assert!(newest == "Unreleased" || newest == VERSION, "CHANGELOG.md begins with {newest}");
    let mut n_seen = 0;
    for path in files(&[".md", ".yaml", ".json", ".txt", ".golden"]) {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let versions = text.split(IMAGES).skip(1).filter_map(|rest| {
            let tag = rest.trim_start_matches(char::is_alphabetic).strip_prefix(':')?;
            let end = tag.find(|char: char| !char.is_alphanumeric() && !".-_".contains(char));
            let tag = tag[..end.unwrap_or(tag.len())].trim_end_matches('.');
            tag.starts_with(|char: char| char.is_ascii_digit()).then_some(tag)
        });
        for version in versions {
            assert_eq!(version, VERSION, "{} names an image", path.display());
            n_seen += 1;
        }
        if path.ends_with("Chart.yaml") {
            for key in ["version: ", "appVersion: "] {
                let value = text.lines().find_map(|line| line.strip_prefix(key));
                let value = value.map(|value| value.trim_matches('"'));
                assert_eq!(value, Some(VERSION), "{} in {}", key, path.display());
                n_seen += 1;
            }
        }
    }
    assert!(n_seen > 0, "the places are found");
}
