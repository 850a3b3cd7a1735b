//! What is looked for, in which forms, and where processes could show it.
//!
//! A form is either put together from the secret (base64, percent…), or taken apart from what was seen: lists of numbers,
//! hexadecimal, base64, percent, pairs in reverse.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

pub(crate) const TOKEN: &str =
    "UGxhbnRlZC1hcGktdG9rZW4tdGhhdC1tdXN0LW5ldmVyLWJlLXNlZW4tYW55d2hlcmU0NzEx";
pub(crate) const CLIENT_SECRET: &str = "Pl4nted~Client.Secret-8Q~kx7&=%+/zz";
pub(crate) const USERNAME: &str = "proxy-user";
pub(crate) const PASSWORD: &str = "pl4nted:pr0xy@p/ss%word";

/// A half of a secret is looked for where it is at least this long.
const LEAST_HALF: usize = 10;

/// What is looked for: each secret, and the forms in which it travels.
pub(crate) struct Search {
    needles: Vec<(String, Vec<u8>)>,
}

impl Search {
    pub(crate) fn new(private_key: &str) -> Self {
        let mut search = Self { needles: Vec::new() };
        for (name, secret) in [
            ("token", TOKEN),
            ("client secret", CLIENT_SECRET),
            ("proxy password", PASSWORD),
            ("proxy credentials", &format!("{USERNAME}:{PASSWORD}")),
        ] {
            search.plant(name, secret);
        }
        // Any line of the key's body gives it away, and so do its bytes.
        let body: Vec<&str> =
            private_key.lines().filter(|line| !line.starts_with("-----")).collect();
        body.iter().for_each(|line| search.plant("private key", line));
        let der = BASE64_STANDARD.decode(body.concat()).unwrap_or_default();
        for (part, bytes) in der.chunks(16).enumerate().filter(|(_, bytes)| bytes.len() == 16) {
            // What every key begins with is no secret.
            if part > 2 {
                search.needles.push((format!("private key, bytes of part {part}"), bytes.to_vec()));
            }
        }
        search
    }

    pub(crate) fn plant(&mut self, name: &str, secret: &str) {
        let encoded = form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        let forms = [
            ("as it is", secret.to_owned()),
            ("base64", BASE64_STANDARD_NO_PAD.encode(secret)),
            ("base64 for URLs", BASE64_URL_SAFE_NO_PAD.encode(secret)),
            ("for forms", encoded),
            ("as JSON", serde_json::to_string(secret).unwrap().trim_matches('"').to_owned()),
            ("hexadecimal", secret.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ];
        for (form, text) in forms {
            self.needles.push((format!("{name} {form}"), text.into_bytes()));
        }
        let half = secret.len() / 2;
        if secret.len() >= 2 * LEAST_HALF && secret.is_ascii() {
            for (which, text) in [("first", &secret[..half]), ("second", &secret[half..])] {
                self.needles.push((format!("{which} half of {name}"), text.as_bytes().to_vec()));
            }
        }
        // As text of bytes, in the way that debuggers print them.
        let bytes = format!("{:?}", secret.as_bytes());
        self.needles.push((format!("{name} as numbers"), bytes.trim_matches(['[', ']']).into()));
    }

    /// The names of the secrets that stand in there.
    pub(crate) fn found_in(&self, hay: &[u8]) -> Vec<&str> {
        let mut found = Vec::new();
        for view in std::iter::once(hay.to_vec()).chain(views(hay)) {
            for (name, needle) in &self.needles {
                if !found.contains(&name.as_str()) && memchr::memmem::find(&view, needle).is_some()
                {
                    found.push(name.as_str());
                }
            }
        }
        found
    }

    #[track_caller]
    pub(crate) fn finds_nothing(&self, what: &str, hay: &[u8]) {
        let found = self.found_in(hay);
        assert!(found.is_empty(), "{what} shows: {found:?}");
    }
}

/// What may stand in a text in another form: each text that it comes to when it is taken apart.
fn views(hay: &[u8]) -> Vec<Vec<u8>> {
    let mut views = vec![numbers(hay), percent(hay)];
    let nibbles = |first: usize| -> Vec<u8> {
        let digits: Vec<u8> = hay
            .iter()
            .filter_map(|byte| char::from(*byte).to_digit(16))
            .map(|digit| digit.to_le_bytes()[0])
            .collect();
        let pairs = digits.get(first..).unwrap_or_default().chunks_exact(2);
        pairs.map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    // Hexadecimal with whatever stands between, in words without other letters.
    views.extend([nibbles(0), nibbles(1)]);
    let runs = hay.split(|byte| !byte.is_ascii_hexdigit()).filter(|run| run.len() >= 2);
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0).to_le_bytes()[0];
    views.push(
        runs.flat_map(|run| {
            run.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect::<Vec<_>>()
        })
        .collect(),
    );
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    // One view for each place in a group of four at which it may begin.
    let mut decoded = [const { Vec::new() }; 4];
    for run in hay.split(|byte| !is_base64(byte)).filter(|run| run.len() >= 16) {
        let plain = run.iter().map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        });
        let run: Vec<u8> = plain.collect();
        for (begin, view) in decoded.iter_mut().enumerate() {
            let whole = &run[begin..];
            let whole = &whole[..whole.len() / 4 * 4];
            view.extend(BASE64_STANDARD_NO_PAD.decode(whole).unwrap_or_default());
        }
    }
    views.extend(decoded);
    // Of a line that begins on either side of a pair.
    for begin in [0, 1] {
        let pairs = hay.get(begin..).unwrap_or_default().chunks_exact(2);
        views.push(pairs.flat_map(|pair| [pair[1], pair[0]]).collect());
    }
    views.push(hay.iter().rev().copied().collect());
    views.push(hay.iter().copied().filter(|byte| *byte != 0).collect());
    views
}

/// Every number below 256, in decimal, whatever stands between.
fn numbers(hay: &[u8]) -> Vec<u8> {
    let runs = hay.split(|byte| !byte.is_ascii_digit()).filter(|run| (1..=3).contains(&run.len()));
    runs.filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok()).collect()
}

fn percent(hay: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = hay;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| byte == b'%') {
            Some(code) => {
                decoded.push(code);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

/// The arguments and the environment of a process and of all that it started.
pub(crate) fn processes(pid: u32) -> Vec<(String, Vec<u8>)> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(pid) = family.get(at).copied() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family
                .extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    let files = family
        .iter()
        .flat_map(|pid| ["cmdline", "environ"].map(|file| format!("/proc/{pid}/{file}")));
    // A process may end while it is looked at.
    files.filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
