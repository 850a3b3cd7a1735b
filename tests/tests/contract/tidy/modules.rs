//! The modules of a crate as files, and which file uses which: read off the words of the sources, without a compiler.
//!
//! A use is a path that names an item of another file: in a `use`, or in the code. A path through a re-export leads to the
//! file that the re-export names, and a re-export by itself is no use. Comments, texts and what is compiled for tests only are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's name, from the root: `["source", "query"]`; the root has none.
pub(crate) type Name = Vec<String>;

/// A file that is a module.
pub(crate) struct Module {
    /// Its path below the root of the repository.
    pub(crate) file: String,
    /// What it begins with.
    pub(crate) doc: String,
    /// Whether its parent declares it for more than itself.
    pub(crate) is_public: bool,
    /// Its words, without comments, texts and what is for tests.
    words: Vec<String>,
    /// Names that it imports or re-exports, with the paths as they are written.
    imports: BTreeMap<String, Name>,
    /// The paths that it names in its code and in imports of its own.
    paths: BTreeSet<Name>,
}

impl Module {
    /// Whether this word stands in its code.
    pub(crate) fn says(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    /// Every path of its code and its imports, as it is written.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Name> {
        self.paths.iter()
    }
}

/// The modules of one crate.
pub(crate) struct Modules {
    pub(crate) all: BTreeMap<Name, Module>,
}

impl Modules {
    /// Reads those below `src` of a crate's folder.
    pub(crate) fn read(root: &Path, package: &str) -> Self {
        let src = root.join(package).join("src");
        let mut all = BTreeMap::new();
        let top = ["lib.rs", "main.rs"].map(|name| src.join(name));
        let top = top.into_iter().find(|path| path.is_file()).expect("a root");
        read(root, &top, &src, (Vec::new(), true), &mut all);
        Self { all }
    }

    /// The file's module that a path written in a module leads to, and the names below it; none outside of the crate.
    pub(crate) fn lead(&self, from: &Name, path: &[String]) -> Option<Name> {
        let mut at;
        let mut rest: Vec<String>;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), path[1..].to_vec()),
            "self" => (at, rest) = (from.clone(), path[1..].to_vec()),
            "super" => {
                (at, rest) = (from.clone(), path.to_vec());
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest.remove(0);
                }
            }
            first => {
                let child: Name = from.iter().cloned().chain([first.to_owned()]).collect();
                if self.all.contains_key(&child) {
                    (at, rest) = (child, path[1..].to_vec());
                } else if let Some(import) = self.all.get(from)?.imports.get(first)
                    && path.len() > 1
                    && import.first().is_some_and(|word| word != first)
                {
                    let longer: Name = import.iter().chain(&path[1..]).cloned().collect();
                    return self.lead(from, &longer);
                } else {
                    return None;
                }
            }
        }
        // Down through modules, and through what they re-export.
        while let Some(next) = rest.first().cloned() {
            let child: Name = at.iter().cloned().chain([next.clone()]).collect();
            if self.all.contains_key(&child) {
                (at, rest) = (child, rest[1..].to_vec());
            } else if &at != from
                && let Some(import) = self.all.get(&at)?.imports.get(&next)
                && let Some(further) = {
                    let longer: Name = import.iter().chain(&rest[1..]).cloned().collect();
                    self.lead(&at, &longer)
                }
            {
                return Some(further);
            } else {
                break;
            }
        }
        Some(at)
    }

    /// Which modules each uses.
    pub(crate) fn uses(&self) -> BTreeMap<Name, BTreeSet<Name>> {
        let used = |name: &Name, module: &Module| {
            let to = module.paths.iter().filter_map(|path| self.lead(name, path));
            to.filter(|to| to != name).collect()
        };
        self.all.iter().map(|(name, module)| (name.clone(), used(name, module))).collect()
    }
}

fn read(
    root: &Path,
    file: &Path,
    folder: &Path,
    (name, is_public): (Name, bool),
    all: &mut BTreeMap<Name, Module>,
) {
    let text = fs::read_to_string(file).unwrap();
    let doc = text.lines().map_while(|line| line.strip_prefix("//!"));
    let doc = doc.map(str::trim).collect::<Vec<_>>().join("\n");
    let words = without_tests(&words(&text));
    let (imports, paths, children) = parse(&words);
    for (child, is_public) in children {
        let mut deeper = name.clone();
        deeper.push(child.clone());
        let path: PathBuf = folder.join(format!("{child}.rs"));
        read(root, &path, &folder.join(&child), (deeper, is_public), all);
    }
    let file = file.strip_prefix(root).unwrap().display().to_string();
    all.insert(name, Module { file, doc, is_public, words, imports, paths });
}

/// Words and signs: names whole, `::` as one, every other sign alone; no comments, texts or characters.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |char: char| char.is_alphanumeric() || char == '_';
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, rest)| rest);
        } else if let Some(after) = raw_text(rest) {
            rest = after;
        } else if first == '"' {
            rest = after_text(&rest[1..]);
        } else if first == '\'' {
            // A character, or the name of a lifetime.
            let mut inside = rest[1..].chars();
            let second = inside.next();
            rest = match (second, inside.next()) {
                (Some('\\'), _) => {
                    rest[1..].get(2..).and_then(|it| it.split_once('\'')).map_or("", |(_, it)| it)
                }
                (Some(char), Some('\'')) => &rest[2 + char.len_utf8()..],
                _ => rest[1..].trim_start_matches(is_name),
            };
        } else if is_name(first) {
            let end = rest.find(|char| !is_name(char)).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        } else if rest.starts_with("::") {
            words.push("::".to_owned());
            rest = &rest[2..];
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

fn after_text(mut rest: &str) -> &str {
    while let Some(at) = rest.find(['"', '\\']) {
        if rest[at..].starts_with('"') {
            return &rest[at + 1..];
        }
        let escaped = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        rest = &rest[at + 1 + escaped..];
    }
    ""
}

/// What follows a raw text, where one begins here.
fn raw_text(rest: &str) -> Option<&str> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let inside = after.trim_start_matches('#');
    let hashes = &after[..after.len() - inside.len()];
    let inside = inside.strip_prefix('"')?;
    inside.split_once(&format!("\"{hashes}")).map(|(_, rest)| rest)
}

/// Without the items that stand under `#[cfg(test)]`.
fn without_tests(words: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut rest = words;
    while !rest.is_empty() {
        if rest.len() >= MARK.len() && rest.iter().zip(MARK).all(|(word, mark)| word == mark) {
            rest = after_item(&rest[MARK.len()..]);
        } else {
            kept.push(rest[0].clone());
            rest = &rest[1..];
        }
    }
    kept
}

/// An item ends with its `;`, or with the brace that closes it.
fn after_item(words: &[String]) -> &[String] {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && word == "}" {
                    return &words[at + 1..];
                }
            }
            ";" if depth == 0 => return &words[at + 1..],
            _ => {}
        }
    }
    &[]
}

type Parsed = (BTreeMap<String, Name>, BTreeSet<Name>, Vec<(String, bool)>);

/// Imports, paths, and the children that are declared.
fn parse(words: &[String]) -> Parsed {
    let (mut imports, mut paths, mut children) = Parsed::default();
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        let next = |n: usize| words.get(at + n).map(String::as_str);
        let is_public = at > 0 && ["pub", ")"].contains(&words[at - 1].as_str());
        if word == "in" && at > 1 && words[at - 1] == "(" && words[at - 2] == "pub" {
            // Where it may be seen is no use.
            at += words[at..].iter().position(|word| word == ")").unwrap_or(words.len() - at);
        } else if word == "mod" && next(2) == Some(";") {
            children.push((words[at + 1].clone(), is_public));
            at += 3;
        } else if word == "use" && next(1) != Some("<") {
            let end = words[at..].iter().position(|word| word == ";").unwrap_or(words.len() - at);
            let mut found = Vec::new();
            tree(&words[at + 1..at + end], &Vec::new(), &mut found);
            for (path, name) in found {
                if !is_public {
                    paths.insert(path.clone());
                }
                imports.insert(name, path);
            }
            at += end;
        } else if is_name(word) && next(1) == Some("::") && (at == 0 || words[at - 1] != "::") {
            let mut path = vec![word.to_owned()];
            while words.get(at + 1).is_some_and(|word| word == "::")
                && words.get(at + 2).is_some_and(|word| is_name(word))
            {
                path.push(words[at + 2].clone());
                at += 2;
            }
            paths.insert(path);
            at += 1;
        } else {
            at += 1;
        }
    }
    (imports, paths, children)
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The paths of a `use`, each with the name that it brings; every `*` brings its own path.
fn tree(words: &[String], before: &Name, found: &mut Vec<(Name, String)>) {
    let mut path = before.clone();
    let mut at = 0;
    while at < words.len() {
        match words[at].as_str() {
            "{" => {
                let inside = &words[at + 1..words.len() - 1];
                let mut depth = 0_usize;
                let parts = inside.split(|word| {
                    match word.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    depth == 0 && word == ","
                });
                parts.for_each(|part| tree(part, &path, found));
                return;
            }
            "as" => {
                found.push((path, words[at + 1].clone()));
                return;
            }
            "self" if !path.is_empty() => {}
            "*" => {
                let name = format!("{} *", path.join("::"));
                found.push((path, name));
                return;
            }
            "::" => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    if let Some(name) = path.last().cloned() {
        found.push((path, name));
    }
}
