//! What a secret's file means: the value without what editors, shells and copying leave around it. Pure.
//!
//! What is around a value by mistake is taken off: byte-order marks, invisible characters, blanks, line ends, quotation
//! marks, `Token` or `Bearer` before a token. What no such secret can be is refused by kind; no text here ever holds a
//! part of it.

use std::fmt;

use zeroize::Zeroizing;

/// The longest secret that is believed; a longer file is a mistake.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// `Authorization: Bearer "…"` and the like are layers; nobody wraps a token more often than this.
const MAX_LAYERS: usize = 6;

/// What a secret is for: each has its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An API token of the portal: the characters of RFC 7235's `token68`.
    Token,
    /// A client secret of Entra ID: printable ASCII without blanks.
    ClientSecret,
    /// A ServiceAccount's token, which is a JWT (RFC 7519) and so of a token's characters.
    Assertion,
    /// A proxy's user name: no colon (RFC 7617).
    Username,
    /// A proxy's password: any text of one line.
    Password,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::ClientSecret => "client secret",
            Self::Assertion => "ServiceAccount token",
            Self::Username => "user name",
            Self::Password => "password",
        }
    }
}

/// Why a file holds no such secret. Its words never hold a part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    kind: Kind,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Empty,
    TooLong,
    NotText,
    Lines,
    Pem,
    Json,
    Yaml,
    Url,
    Blank,
    Invisible,
    Control,
    NotAscii,
    Strange,
    Colon,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.kind.noun();
        match self.what {
            What::Empty => formatter.write_str("is empty"),
            What::TooLong => write!(formatter, "is longer than any {noun}"),
            What::NotText => formatter.write_str("is not text"),
            What::Lines => formatter.write_str("holds a line break"),
            What::Pem => formatter.write_str("holds a PEM block, a certificate or a key"),
            What::Json => formatter.write_str("holds a JSON document"),
            What::Yaml => formatter.write_str("holds lines of YAML, a name and a value"),
            What::Url => formatter.write_str("holds a URL"),
            What::Blank => formatter.write_str("holds a blank in the middle"),
            What::Invisible => {
                formatter.write_str("holds an invisible character in the middle, such as U+200B")
            }
            What::Control => formatter.write_str("holds a control character"),
            What::NotAscii => formatter.write_str("holds a character outside ASCII"),
            What::Strange => write!(formatter, "holds a sign that no {noun} has"),
            What::Colon => {
                formatter.write_str("holds a colon, which Basic authentication cannot carry there")
            }
        }?;
        formatter.write_str(": store the value alone, on one line")
    }
}

/// The value that a file means.
pub(super) fn clean(bytes: &[u8], kind: Kind) -> Result<String, Flaw> {
    let flaw = |what| Flaw { kind, what };
    if bytes.len() > MAX_BYTES {
        return Err(flaw(What::TooLong));
    }
    let text = decode(bytes).map(Zeroizing::new).ok_or_else(|| flaw(What::NotText))?;
    let value = peel(&text, kind);
    match flaw_of(value, kind) {
        None => Ok(value.to_owned()),
        Some(what) => Err(flaw(what)),
    }
}

/// UTF-8, or UTF-16 as some editors and shells write it.
fn decode(bytes: &[u8]) -> Option<String> {
    let units = |from_pair: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| from_pair(*pair)).collect();
        let units: Zeroizing<Vec<u16>> = Zeroizing::new(units);
        rest.is_empty().then(|| String::from_utf16(&units).ok())?
    };
    let zeros = |first: usize| bytes.iter().skip(first).step_by(2).all(|byte| *byte == 0);
    match bytes {
        [0xFF, 0xFE, ..] => units(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => units(u16::from_be_bytes),
        [first, 0, ..] if *first != 0 && zeros(1) => units(u16::from_le_bytes),
        [0, second, ..] if *second != 0 && zeros(0) => units(u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    }
}

/// Takes off, layer by layer, what is around the value.
fn peel(text: &str, kind: Kind) -> &str {
    let mut value = bare(text);
    match kind {
        Kind::Token | Kind::ClientSecret | Kind::Assertion => {
            for _ in 0..MAX_LAYERS {
                let inner = bare(unquoted(value));
                let inner = if kind == Kind::Token { without_scheme(inner) } else { inner };
                if inner == value {
                    break;
                }
                value = inner;
            }
            value
        }
        // Quotation marks keep blanks that are part of it, and more of them.
        Kind::Username | Kind::Password => unquoted(value),
    }
}

/// Without blanks, line ends and invisible characters at both ends.
fn bare(text: &str) -> &str {
    text.trim_matches(|char: char| char.is_whitespace() || is_invisible(char))
}

/// Without one pair of quotation marks.
fn unquoted(text: &str) -> &str {
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('„', '“')];
    let inner = |(open, close)| text.strip_prefix(open)?.strip_suffix(close);
    pairs.into_iter().find_map(inner).unwrap_or(text)
}

/// Without `Token` or `Bearer`, and the header's name before it.
fn without_scheme(text: &str) -> &str {
    let after = |text: &'static str, word: &'_ str| word.eq_ignore_ascii_case(text);
    let value = match text.split_once(':') {
        Some((name, value)) if after("Authorization", name.trim()) => value.trim_start(),
        Some(_) | None => text,
    };
    let end = value.find(char::is_whitespace).unwrap_or(value.len());
    let (word, rest) = value.split_at(end);
    if after("Token", word) || after("Bearer", word) { bare(rest) } else { text }
}

fn flaw_of(value: &str, kind: Kind) -> Option<What> {
    if value.is_empty() {
        return Some(What::Empty);
    }
    if value.contains("-----BEGIN") {
        return Some(What::Pem);
    }
    if is_json(value) {
        return Some(What::Json);
    }
    let is_line_end = |char: char| {
        matches!(char, '\n' | '\r' | '\u{B}' | '\u{C}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    if value.contains(is_line_end) {
        return Some(if value.split(is_line_end).any(is_yaml) { What::Yaml } else { What::Lines });
    }
    if value.chars().any(is_invisible) {
        return Some(What::Invisible);
    }
    if value.chars().any(|char| char.is_control() && char != '\t') {
        return Some(What::Control);
    }
    match kind {
        Kind::Username if value.contains(':') => Some(What::Colon),
        Kind::Username | Kind::Password => is_url(value).then_some(What::Url),
        Kind::Token | Kind::ClientSecret | Kind::Assertion => {
            if value.contains(": ") && is_yaml(value) {
                return Some(What::Yaml);
            }
            if value.contains("://") {
                return Some(What::Url);
            }
            if value.chars().any(char::is_whitespace) {
                return Some(What::Blank);
            }
            if !value.is_ascii() {
                return Some(What::NotAscii);
            }
            (kind == Kind::Token && !is_token(value)).then_some(What::Strange)
        }
    }
}

/// Whether a text can stand after a scheme in `Authorization` (RFC 7235, `token68`).
pub(crate) fn is_token(text: &str) -> bool {
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !text.is_empty() && text.bytes().all(belongs)
}

fn is_json(text: &str) -> bool {
    (text.starts_with('{') && text.ends_with('}') && text.contains(':'))
        || (text.starts_with('[') && text.ends_with(']') && text.contains('"'))
}

/// `name: value`, or the beginning of a document.
fn is_yaml(line: &str) -> bool {
    let is_name = |name: &str| {
        let belongs = |char: char| char.is_ascii_alphanumeric() || "-_.\"' ".contains(char);
        !name.trim().is_empty() && name.chars().all(belongs)
    };
    line.trim() == "---"
        || line.split_once(": ").is_some_and(|(name, _)| is_name(name))
        || line
            .trim_end()
            .strip_suffix(':')
            .is_some_and(|name| !name.contains(':') && is_name(name))
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        text.get(..scheme.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(scheme))
    })
}

/// Characters that no one sees, and that come with copying and with editors.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'
            | '\u{1160}'
            | '\u{17B4}'
            | '\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "UExBTlRFRC10b2tlbg==";

    fn utf16(text: &str, mark: bool, from: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = if mark { "\u{FEFF}" } else { "" };
        format!("{mark}{text}").encode_utf16().flat_map(from).collect()
    }

    #[test]
    fn what_is_around_a_token_is_taken_off() {
        for around in [
            "T",
            "T\n",
            "T\r\n",
            "T\n\n\r\n",
            " T ",
            "\tT\t\n",
            "\u{FEFF}T",
            "T\u{FEFF}\n",
            "\u{FEFF}T\r\n",
            "\u{200B}T",
            "T\u{200B}",
            "\u{2060}\u{200E}T\u{200D} \n",
            "\u{A0}T\u{A0}",
            "\u{AD}T",
            "T\u{2028}",
            "\"T\"",
            "'T'",
            "`T`",
            "“T”",
            "\"T\n\"",
            "\" T \"\n",
            "'\"T\"'",
            "\u{FEFF}\"\u{200B}T\"\r\n",
            "Token T",
            "Bearer T",
            "token T\n",
            "BEARER  T",
            "Bearer\tT",
            "Token \"T\"",
            "\"Bearer T\"",
            "Authorization: Token T",
            "authorization:Bearer T",
            "\"Authorization: Token T\"\n",
            "Token\u{A0}T",
        ] {
            let file = around.replace('T', "@").replace("@oken", "Token").replace('@', TOKEN);
            assert_eq!(clean(file.as_bytes(), Kind::Token).as_deref(), Ok(TOKEN), "{around:?}");
            for (mark, from) in
                [(true, u16::to_le_bytes as fn(u16) -> [u8; 2]), (true, u16::to_be_bytes)]
            {
                assert_eq!(
                    clean(&utf16(&file, mark, from), Kind::Token).as_deref(),
                    Ok(TOKEN),
                    "{around:?} in UTF-16"
                );
            }
        }
        for from in [u16::to_le_bytes, u16::to_be_bytes] {
            let file = utf16(&format!("{TOKEN}\r\n"), false, from);
            assert_eq!(clean(&file, Kind::Token).as_deref(), Ok(TOKEN), "without a mark");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_by_kind_and_never_shown() {
        let cases: [(&[u8], &str); 34] = [
            (b"", "is empty"),
            (b" \r\n", "is empty"),
            (b"\"\"", "is empty"),
            (b"\xEF\xBB\xBF\xE2\x80\x8B", "is empty"),
            (b"Token", "is empty"),
            (b"Bearer \n", "is empty"),
            (b"PLANTED\nPLANTED", "line break"),
            (b"PLANTED\rPLANTED", "line break"),
            (b"PLANTED\xE2\x80\xA8PLANTED", "line break"),
            (b"PLANTED PLANTED", "a blank"),
            (b"PLANTED\tPLANTED", "a blank"),
            (b"Token PLANTED PLANTED", "a blank"),
            (b"PLANTED\xC2\xA0PLANTED", "a blank"),
            (b"PLANTED\xE2\x80\x8BPLANTED", "invisible"),
            (b"PLANTED\xEF\xBB\xBFPLANTED", "invisible"),
            (b"PLANTED\0", "control character"),
            (b"\x1bPLANTED", "control character"),
            (b"PLANTED\x7f", "control character"),
            ("PLÄNTED-PLANTED".as_bytes(), "outside ASCII"),
            ("PLANTED…".as_bytes(), "outside ASCII"),
            (b"PLANTED\xff", "is not text"),
            (b"\xff\xfeP\0L\0A\0N\0T\0E\0D\0\0", "is not text"),
            (b"\"PLANTED", "a sign"),
            (b"<PLANTED>", "a sign"),
            (b"PLANTED\\n", "a sign"),
            (b"${PLANTED}", "a sign"),
            (b"{\"token\": \"PLANTED\"}", "JSON"),
            (b"{\n  \"token\": \"PLANTED\"\n}\n", "JSON"),
            (b"[\"PLANTED\"]", "JSON"),
            (b"token: PLANTED", "YAML"),
            (b"apiVersion: v1\nkind: Secret\ndata:\n  token: PLANTED\n", "YAML"),
            (b"---\nPLANTED\n", "YAML"),
            (b"-----BEGIN CERTIFICATE-----\nPLANTED\n-----END CERTIFICATE-----\n", "PEM"),
            (b"https://contoso.us2.portal.cloudappsecurity.com/?token=PLANTED", "URL"),
        ];
        for (file, words) in cases {
            let flaw = clean(file, Kind::Token).unwrap_err();
            assert!(flaw.to_string().contains(words), "{flaw}: {words}");
            assert!(!format!("{flaw} {flaw:?}").contains("PLANTED"), "{flaw}");
        }
        let long = vec![b'x'; MAX_BYTES + 1];
        assert!(clean(&long, Kind::Token).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn client_secrets_and_credentials_have_other_forms() {
        let is = |file: &str, kind, value: &str| {
            assert_eq!(clean(file.as_bytes(), kind).as_deref(), Ok(value), "{file}");
        };
        let secret = "Pl4nted~Client.Secret-8Q~k_x[S/z]B:?@!*$&%{";
        is(&format!("\u{FEFF}\"{secret}\"\r\n"), Kind::ClientSecret, secret);
        is("Bearer", Kind::ClientSecret, "Bearer");
        is("p w\u{e9}: \"x\" \n", Kind::Password, "p w\u{e9}: \"x\"");
        is("\u{FEFF}\" padded \"\n", Kind::Password, " padded ");
        is("\"\"quoted\"\"", Kind::Password, "\"quoted\"");
        is("DOMAIN\\user\n", Kind::Username, "DOMAIN\\user");
        for (file, kind, words) in [
            ("PLANTED PLANTED", Kind::ClientSecret, "a blank"),
            ("PLANTED\u{e9}", Kind::ClientSecret, "outside ASCII"),
            ("{\"clientSecret\": \"PLANTED\"}", Kind::ClientSecret, "JSON"),
            ("clientSecret: PLANTED", Kind::ClientSecret, "YAML"),
            ("PLANTED:PLANTED", Kind::Username, "colon"),
            ("PLANTED\nPLANTED", Kind::Password, "line break"),
            ("PLANTED\u{200B}PLANTED", Kind::Password, "invisible"),
            ("PLANTED\0", Kind::Password, "control"),
            ("http://u:PLANTED@proxy:3128", Kind::Password, "URL"),
            ("{\"password\": \"PLANTED\"}", Kind::Password, "JSON"),
            ("\n", Kind::Password, "is empty"),
        ] {
            let flaw = clean(file.as_bytes(), kind).unwrap_err();
            assert!(flaw.to_string().contains(words), "{flaw}: {words}");
            assert!(!format!("{flaw} {flaw:?}").contains("PLANTED"), "{flaw}");
        }
    }
}
