//! A reader of CEF lines to the letter of the standard: what the tests hold our lines against.
//!
//! It shares no code with the writer and forgives nothing, so that a line which it reads back is a line that any reader
//! of the standard can. It must never become part of the program.

/// Why a line is no CEF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not begin with `CEF:` and a number.
    NotCef,
    /// A line break in its middle.
    LineBreak,
    /// Fewer than seven pipes.
    ShortHeader,
    /// A backslash before something that has no escape there.
    UnknownEscape,
    /// An equals sign that neither is escaped nor ends a key.
    BareEquals,
    /// An extension that begins with no key.
    NoPair,
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Version, vendor, product, device version, signature, name, severity.
    pub(crate) header: Vec<String>,
    /// The pairs, in order.
    pub(crate) extension: Vec<(String, String)>,
}

/// Reads the part of a message that begins with `CEF:`.
pub(crate) fn read(line: &str) -> Result<Line, Refusal> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\n', '\r']) {
        return Err(Refusal::LineBreak);
    }
    let mut rest = line.strip_prefix("CEF:").ok_or(Refusal::NotCef)?;
    let mut header = Vec::new();
    for _ in 0..7 {
        let end = unescaped(rest, '|').next().ok_or(Refusal::ShortHeader)?;
        header.push(unescape(&rest[..end], "\\|")?);
        rest = &rest[end + 1..];
    }
    if header[0].is_empty() || !header[0].bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::NotCef);
    }
    Ok(Line { header, extension: pairs(rest)? })
}

/// The pairs of an extension. A key is letters and digits, after the beginning or exactly one space.
fn pairs(extension: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut starts = Vec::new();
    for equals in unescaped(extension, '=') {
        let before = &extension[..equals];
        let key = before.rfind(|char: char| !char.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        if key == equals || (key > 0 && !before[..key].ends_with(' ')) {
            return Err(Refusal::BareEquals);
        }
        starts.push((key, equals));
    }
    if starts.first().map_or_else(|| !extension.trim().is_empty(), |(key, _)| *key != 0) {
        return Err(Refusal::NoPair);
    }
    let mut pairs = Vec::new();
    for (index, (key, equals)) in starts.iter().enumerate() {
        let value = match starts.get(index + 1) {
            Some((next, _)) => &extension[equals + 1..next - 1],
            None => extension[equals + 1..].trim_end(),
        };
        pairs.push((extension[*key..*equals].to_owned(), unescape(value, "\\=nr")?));
    }
    Ok(pairs)
}

/// Where a character stands without a backslash that escapes it.
fn unescaped(text: &str, wanted: char) -> impl Iterator<Item = usize> + '_ {
    let mut escaped = false;
    text.char_indices().filter_map(move |(at, char)| {
        let is_wanted = char == wanted && !escaped;
        escaped = char == '\\' && !escaped;
        is_wanted.then_some(at)
    })
}

fn unescape(text: &str, known: &str) -> Result<String, Refusal> {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        match chars.next().filter(|char| known.contains(*char)) {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some(other) => plain.push(other),
            None => return Err(Refusal::UnknownEscape),
        }
    }
    Ok(plain)
}
