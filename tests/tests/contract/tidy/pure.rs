//! What "Pure" means, held against every file that says so.
//!
//! The rule: a file whose `//!` has the word "Pure" in its first paragraph does no I/O, reads no clock, knows no `async`,
//! and uses only files that say so too. A crate whose root says so says it for each of its files. Of other crates it uses what
//! [`ALLOWED`] lists: formats, types and arithmetic. What a file re-exports, its unit tests and their helpers are not its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::modules::{Module, Modules, Name};
use super::{PRODUCTS, none, root};

/// Paths of other crates that do no I/O and read no clock, with all that is below each.
const ALLOWED: [&str; 40] = [
    "alloc",
    "axum::body",
    "base64",
    "bytes",
    "core",
    "htmlize",
    "http",
    "http_body_util",
    "httpdate",
    "jiff",
    "jsonschema",
    "k8s_openapi",
    "kube::CustomResource",
    "kube::CustomResourceExt",
    "kube::Resource",
    "kube::ResourceExt",
    "kube::api::ApiResource",
    "kube::api::DynamicObject",
    "kube::api::Object",
    "kube::api::ObjectMeta",
    "kube::core",
    "kube_cel",
    "memchr",
    "rustls",
    "rustls_pki_types",
    "schemars",
    "serde",
    "serde_ignored",
    "serde_json",
    "serde_path_to_error",
    "serde_saphyr",
    "sha2",
    "shlex",
    "std",
    "thiserror",
    "tokio::time::Instant",
    "tracing",
    "webpki",
    "x509_parser",
    "zeroize",
];

/// What of the standard library is I/O or a clock. An instant may be an argument; `now` is denied wherever it stands.
const DENIED: [&str; 10] = [
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
];

fn says_pure(module: &Module) -> bool {
    let paragraph = module.doc.split("\n\n").next().unwrap_or_default();
    paragraph.split(|char: char| !char.is_alphanumeric()).any(|word| word == "Pure")
}

fn is_below(path: &str, above: &[&str]) -> bool {
    above.iter().any(|above| {
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

struct Product {
    modules: Modules,
    /// As its manifest names them, and the standard library.
    others: BTreeSet<String>,
}

impl Product {
    fn read(package: &str) -> Self {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let dependencies = super::dependencies::names(&manifest, "[dependencies]");
        let library = |name: String| match name.as_str() {
            "rustls-webpki" => "webpki".to_owned(),
            _ => name.replace('-', "_"),
        };
        let others = dependencies.into_iter().map(library);
        let others = others.chain(["alloc", "core", "std"].map(str::to_owned)).collect();
        Self { modules: Modules::read(&root(), package), others }
    }

    fn is_pure(&self, name: &Name) -> bool {
        let all = &self.modules.all;
        says_pure(&all[name]) || says_pure(&all[&Vec::new()])
    }
}

/// What a pure file must not have, each as it is written or as the file that it is in.
fn offences(name: &Name, product: &Product, all: &BTreeMap<&str, Product>) -> BTreeSet<String> {
    let module = &product.modules.all[name];
    let mut found = BTreeSet::new();
    if module.says("async") {
        found.insert("async".to_owned());
    }
    for path in module.paths() {
        let written = path.join("::");
        let ours = path[0].strip_prefix("siem_agent_").and_then(|package| all.get(package));
        let (of, to) = if let Some(other) = ours {
            let inside: Name = ["crate".to_owned()].into_iter().chain(path[1..].to_vec()).collect();
            (other, other.modules.lead(&Vec::new(), &inside))
        } else {
            (product, product.modules.lead(name, path))
        };
        if let Some(to) = to {
            let is_itself = ours.is_none() && &to == name;
            if !is_itself && !of.is_pure(&to) {
                found.insert(of.modules.all[&to].file.clone());
            }
        } else if product.others.contains(&path[0])
            && (!is_below(&written, &ALLOWED) || is_below(&written, &DENIED))
        {
            found.insert(written.clone());
        }
        if path.last().is_some_and(|last| last == "now") {
            found.insert(written);
        }
    }
    found
}

#[test]
fn a_file_that_says_pure_uses_only_such_files() {
    let all: BTreeMap<&str, Product> =
        PRODUCTS.map(|package| (package, Product::read(package))).into();
    let (mut found, mut n_pure) = (BTreeSet::new(), 0);
    for product in all.values() {
        for (name, module) in &product.modules.all {
            if product.is_pure(name) {
                n_pure += 1;
                for offence in offences(name, product, &all) {
                    found.insert((module.file.clone(), offence));
                }
            }
        }
    }
    assert!(n_pure > 80, "{n_pure} files say so");
    let words = |(file, offence): &(String, String)| format!("{file}: {offence}");
    none("pure", found.iter().map(words).collect());
}
