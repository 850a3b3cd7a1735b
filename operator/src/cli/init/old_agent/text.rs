//! Command lines and variables in what is no document: shells, unit files, Dockerfiles, batch files, XML. Pure.

use super::Found;
use super::variables::split;

/// A line may start a shell with a line of its own as one word.
const MAX_DEPTH: u8 = 3;
/// What may stand before `NAME=value`.
const SETTERS: [&str; 7] = ["export", "set", "setx", "env", "arg", "declare", "readonly"];

/// What the text holds.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    add(text, &mut found);
    found
}

/// Adds what a text holds, also one that is a value in a document.
pub(super) fn add(text: &str, found: &mut Found) {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.contains('\0') {
        // As `/proc` keeps it: no quotes, each word ended.
        let words: Vec<String> = text.split(['\0', '\n']).map(str::to_owned).collect();
        add_words(words.into_iter().filter(|word| !word.is_empty()).collect(), found);
    } else if text.starts_with('<') {
        add_xml(text, found);
    } else {
        add_lines(text, found);
    }
}

fn add_lines(text: &str, found: &mut Found) {
    let (mut entry_point, mut command) = (Vec::new(), Vec::new());
    let mut items = Vec::new();
    for line in logical_lines(text) {
        let line = line.trim();
        // A list of YAML that is no YAML yet: a template. A key between two lists belongs to them.
        if let Some(item) = line.strip_prefix("- ") {
            items.extend(split(item).into_iter().next());
        } else if !line.is_empty() && !line.ends_with(':') && !items.is_empty() {
            add_words(std::mem::take(&mut items), found);
        }
        match line.split_once(char::is_whitespace) {
            Some((word, rest)) if word.eq_ignore_ascii_case("ENTRYPOINT") => {
                entry_point = program_words(rest);
                command.clear();
            }
            Some((word, rest))
                if word.eq_ignore_ascii_case("CMD") && rest.trim().starts_with('[') =>
            {
                command = program_words(rest);
            }
            Some(_) | None => add_line(line, found),
        }
    }
    add_words(items, found);
    add_words([entry_point, command].concat(), found);
}

/// The lines with what continues them, by a backslash, a caret (Windows) or a backtick (PowerShell); without comments.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = line.trim();
        if is_comment(line) {
            continue;
        }
        let open = line.strip_suffix(['\\', '^']).or_else(|| line.strip_suffix(" `"));
        let part = open.unwrap_or(line);
        match lines.last_mut() {
            Some(last) if goes_on => {
                last.push(' ');
                last.push_str(part);
            }
            Some(_) | None => lines.push(part.to_owned()),
        }
        goes_on = open.is_some();
    }
    lines
}

fn is_comment(line: &str) -> bool {
    let is_remark = line.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("rem "));
    is_remark || line.starts_with(['#', ';']) || line.starts_with("::") || line.starts_with("//")
}

/// Adds the command of a line, and the variables that it sets.
fn add_line(line: &str, found: &mut Found) {
    match words_of_line(line) {
        Some(words) => add_words(words, found),
        None => add_variables(line, found),
    }
}

/// Adds a command; `NAME=value` before the jar sets a variable for it.
fn add_words(words: Vec<String>, found: &mut Found) {
    let words = words
        .iter()
        .filter(|word| word.contains(' '))
        .find_map(|word| words_of_line(word))
        .filter(|_| !words.iter().any(|word| word == "-jar"))
        .unwrap_or(words);
    let before = words.iter().take_while(|word| *word != "-jar");
    before.for_each(|word| {
        found.variables.set_pair(word.trim_end_matches(';'));
    });
    if words.iter().any(|word| word == "-jar") {
        found.commands.push(words);
    }
}

/// The words of a line with `-jar` among them, also where a shell is started with the line as one word.
pub(super) fn words_of_line(line: &str) -> Option<Vec<String>> {
    line.contains("-jar").then(|| start_words(line, 0)).flatten()
}

fn start_words(line: &str, depth: u8) -> Option<Vec<String>> {
    let words = split(line);
    if words.iter().any(|word| word.contains("-jar,")) {
        return Some(listed(&words));
    }
    // `Name=-jar …`, as a registry or a service's definition has it.
    let bare = |word: &String| {
        if word.ends_with("=-jar") { "-jar".to_owned() } else { word.clone() }
    };
    let words: Vec<String> = words.iter().map(bare).collect();
    if words.iter().any(|word| word == "-jar") {
        return Some(words);
    }
    if depth >= MAX_DEPTH {
        return None;
    }
    words
        .iter()
        .filter(|word| word.contains("-jar") && word.contains(' '))
        .find_map(|word| start_words(word, depth + 1))
}

/// The items of a list that stands in one line, with commas between: JSON, YAML, HCL, PowerShell.
fn listed(words: &[String]) -> Vec<String> {
    let bare = |item: &str| {
        let item = item.trim_start_matches(['[', '@', '(']).trim_end_matches(']');
        let ends_the_list = item.ends_with(')') && !item.contains('(');
        if ends_the_list { item.trim_end_matches(')').to_owned() } else { item.to_owned() }
    };
    let items = words.iter().flat_map(|word| word.split(',')).map(bare);
    items.filter(|item| !item.is_empty()).collect()
}

/// The words of a Dockerfile's instruction: a list, or a line for a shell.
fn program_words(rest: &str) -> Vec<String> {
    let words = split(rest);
    if rest.trim().starts_with('[') { listed(&words) } else { words }
}

/// Adds what a line without a command sets.
fn add_variables(line: &str, found: &mut Found) {
    let words = split(line);
    let mut words = words.as_slice();
    while let Some((first, rest)) = words.split_first()
        && (SETTERS.iter().any(|setter| first.eq_ignore_ascii_case(setter))
            || (first.starts_with('-') && !first.contains('=')))
    {
        words = rest;
    }
    match words {
        // PowerShell's.
        [name, equals, value] if equals == "=" => {
            let name = name.trim_start_matches('$');
            let name = name.split_once(':').map_or(name, |(_scope, name)| name);
            found.variables.set(name, value);
        }
        // An environment file or a batch file does without quotes.
        [pair, next, ..] if next.starts_with('-') && pair.contains('=') => {
            found.variables.set_pair(&words.join(" "));
        }
        // A Dockerfile's old form.
        [name, value @ ..] if !name.contains('=') && line.starts_with("ENV ") => {
            found.variables.set(name, &value.join(" "));
        }
        pairs => {
            for word in pairs {
                found.variables.set_pair(word.trim_end_matches(';'));
            }
        }
    }
}

/// Tasks of Windows, services' definitions, property lists.
fn add_xml(text: &str, found: &mut Found) {
    for element in text.split("<env ").skip(1) {
        if let (Some(name), Some(value)) = (attribute(element, "name"), attribute(element, "value"))
        {
            found.variables.set(&name, &value);
        }
    }
    for pair in text.split("<key>").skip(1) {
        if let Some((name, rest)) = pair.split_once("</key>")
            && let Some(value) = rest.trim_start().strip_prefix("<string>")
        {
            found
                .variables
                .set(name.trim(), &plain(value.split("</string>").next().unwrap_or_default()));
        }
    }
    for name in ["arguments", "Arguments", "startarguments"] {
        for arguments in elements(text, name) {
            add_line(&arguments.split_whitespace().collect::<Vec<_>>().join(" "), found);
        }
    }
    let repeated: Vec<String> = elements(text, "argument");
    add_words(repeated, found);
    for array in text.split("<array>").skip(1) {
        let array = array.split("</array>").next().unwrap_or_default();
        add_words(elements(array, "string"), found);
    }
}

/// What stands in each element of this name.
fn elements(text: &str, name: &str) -> Vec<String> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let contents = text.split(begin.as_str()).skip(1);
    contents.map(|rest| plain(rest.split(end.as_str()).next().unwrap_or_default())).collect()
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let (_, rest) = element.split('>').next()?.split_once(&format!("{name}=\""))?;
    Some(plain(rest.split('"').next()?))
}

/// The text without XML's entities.
fn plain(text: &str) -> String {
    text.trim()
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}
