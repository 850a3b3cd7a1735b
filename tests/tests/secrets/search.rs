//! What is looked for, in which forms, and where processes could show it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

pub(crate) const TOKEN: &str =
    "UGxhbnRlZC1hcGktdG9rZW4tdGhhdC1tdXN0LW5ldmVyLWJlLXNlZW4tYW55d2hlcmU0NzEx";
pub(crate) const CLIENT_SECRET: &str = "Pl4nted~Client.Secret-8Q~kx7&=%+/zz";
pub(crate) const USERNAME: &str = "proxy-user";
pub(crate) const PASSWORD: &str = "pl4nted:pr0xy@p/ss%word";

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
        // Any line of the key's body gives it away.
        let body = private_key.lines().filter(|line| !line.starts_with("-----"));
        body.for_each(|line| search.plant("private key", line));
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
        // As text of bytes, in the way that debuggers print them.
        let bytes = format!("{:?}", secret.as_bytes());
        self.needles.push((format!("{name} as numbers"), bytes.trim_matches(['[', ']']).into()));
    }

    /// The names of the secrets that stand in there.
    pub(crate) fn found_in(&self, hay: &[u8]) -> Vec<&str> {
        let stands = |needle: &[u8]| hay.windows(needle.len()).any(|window| window == needle);
        self.needles
            .iter()
            .filter(|(_, needle)| stands(needle))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[track_caller]
    pub(crate) fn finds_nothing(&self, what: &str, hay: &[u8]) {
        let found = self.found_in(hay);
        assert!(found.is_empty(), "{what} shows: {found:?}");
    }
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
