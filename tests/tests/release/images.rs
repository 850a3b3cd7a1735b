//! What ships in the images: one static program each, for any user, the same bits from the same commit.

mod archive;
mod confined;
mod release;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use siem_agent_sim::defender::{Defender, Options};
use siem_agent_sim::images::{Images, script};
use siem_agent_sim::pki::Authority;

use self::archive::Archive;
use self::confined::GIVEN;

/// Of a program, and so of its image on a node's disk; to pull it is less.
const MOST_BYTES: u64 = 12_000_000;
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Both archives, each with the name of its program.
async fn archives() -> Result<[(&'static str, Archive); 2]> {
    let images = Images::build().await?;
    let operator = Archive::open(&images.operator)?;
    let forwarder = Archive::open(&images.forwarder)?;
    Ok([("siem-operator", operator), ("siem-forwarder", forwarder)])
}

pub(crate) fn said_by(program: &str, arguments: &[&str]) -> Result<String> {
    let out = Command::new(program).args(arguments).output();
    let out = out.with_context(|| format!("run {program}"))?;
    ensure!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

#[tokio::test]
async fn an_image_is_one_static_program() -> Result<()> {
    for (program, archive) in archives().await? {
        let [file] = &archive.files[..] else { panic!("one file, not {:?}", archive.files) };
        assert!(
            file.starts_with("-rwxr-xr-x 0/0 ") && file.ends_with(&format!(" {program}")),
            "{file}"
        );
        let path = archive.root().join(program);
        let n_bytes = fs::metadata(&path)?.len();
        ensure!(n_bytes <= MOST_BYTES, "{program} has {n_bytes} bytes");
        let path = path.to_str().context("a path")?;
        // No interpreter and no library is asked for; and it is a program that may lie at any address.
        let headers =
            said_by("readelf", &["--wide", "--file-header", "--segments", "--dynamic", path])?;
        assert!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "{headers}");
        assert!(headers.contains("DYN (Position-Independent Executable file)"), "{headers}");
        let symbols = said_by("readelf", &["--wide", "--sections", path])?;
        assert!(!symbols.contains(".symtab") && !symbols.contains(".debug_"), "{symbols}");
        // Where it was built is nobody's business, and would make it differ.
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let root = fs::canonicalize(ROOT)?;
        assert!(
            !text.contains(root.to_str().context("a path")?),
            "{program} names the folder {root:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_image_says_what_it_is() -> Result<()> {
    let revision = said_by("git", &["-C", ROOT, "rev-parse", "HEAD"])?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    for (program, archive) in archives().await? {
        assert_eq!(archive.name, format!("ghcr.io/siem-agent-operator/{program}:{VERSION}"));
        let image = &archive.config;
        assert_eq!(image["architecture"], architecture);
        assert_eq!(image["os"], "linux");
        let config = &image["config"];
        assert_eq!(config["User"], "65532:65532");
        assert_eq!(config["Entrypoint"], json!([format!("/{program}")]));
        let port = if program == "siem-operator" { "8080/tcp" } else { "9464/tcp" };
        assert_eq!(config["ExposedPorts"], json!({ port: {} }));
        let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
        assert_eq!(label("title"), program);
        assert_eq!(label("version"), VERSION);
        assert_eq!(label("licenses"), "Apache-2.0");
        assert_eq!(label("source"), "https://github.com/siem-agent-operator/siem-agent-operator");
        assert!(label("revision").as_str().context("a text")?.starts_with(revision.trim()));
        assert!(label("description").as_str().is_some_and(|text| !text.is_empty()));
        let n_labels = config["Labels"].as_object().context("labels")?.len();
        assert_eq!(n_labels, 6, "a label of the builder's would change with its version: {config}");
    }
    Ok(())
}

#[tokio::test]
async fn the_same_commit_gives_the_same_image() -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let into = elsewhere.path().to_str().context("a path")?;
    let again = Images::build_with(&["--into", into]).await?;
    for (archive, path) in archives().await?.iter().zip([&again.operator, &again.forwarder]) {
        assert!(path.starts_with(elsewhere.path()), "{}", path.display());
        assert_eq!(archive.1.digest, Archive::open(path)?.digest, "{}", archive.0);
    }
    let left = fs::read_dir(elsewhere.path())?.count();
    assert_eq!(left, 4, "two archives with their keys, and nothing else is left behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_run_for_any_user_with_nothing_around_them() -> Result<()> {
    let [(_, operator), (_, forwarder)] = archives().await?;
    let given = tempfile::tempdir()?;
    let said = |archive: &Archive, command: &[&str]| {
        let out = confined::run(&archive.root(), given.path(), command)?;
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        anyhow::Ok((out.status.code(), String::from_utf8(out.stdout)?, err))
    };
    for (archive, program) in [(&operator, "siem-operator"), (&forwarder, "siem-forwarder")] {
        let command = format!("/{program}");
        let expected = (Some(0), format!("{program} {VERSION}\n"), String::new());
        assert_eq!(said(archive, &[&command, "--version"])?, expected);
    }
    let crd = fs::read_to_string(Path::new(ROOT).join("crds/siemagents.yaml"))?;
    assert_eq!(said(&operator, &["/siem-operator", "crd"])?, (Some(0), crd, String::new()));

    // The operator runs the forwarder's image of the same release.
    let manifest = format!("{GIVEN}/siemagent.yaml");
    fs::copy(
        Path::new(ROOT).join("crds/fixtures/legal/minimal.yaml"),
        given.path().join("siemagent.yaml"),
    )?;
    let (code, objects, err) = said(&operator, &["/siem-operator", "render", "-f", &manifest])?;
    assert_eq!(code, Some(0), "{err}");
    assert!(objects.contains(&format!("image: {}\n", forwarder.name)), "{objects}");

    // Public roots are built in: without a file of them, a portal of another authority is looked at and not trusted.
    let authority = Authority::new("an authority that nobody knows")?;
    let tls = Some(authority.loopback_server()?);
    let portal = Defender::start(Options { tls, ..Options::default() }).await?;
    let minimal = fs::read_to_string(given.path().join("siemagent.yaml"))?;
    let minimal = minimal.replace("https://contoso.us2.portal.cloudappsecurity.com", &portal.url());
    let minimal = minimal.replace("{host: siem.example.com}", "{host: localhost, port: 1}");
    fs::write(given.path().join("siemagent.yaml"), minimal)?;
    fs::create_dir_all(given.path().join("defender"))?;
    fs::write(given.path().join("defender/token"), "any-token")?;
    let check = ["/siem-forwarder", "check", "--manifest", &manifest, "--secrets", GIVEN];
    let (code, out, err) = said(&forwarder, &check)?;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("ok   DNS, API, localhost: is 127.0.0.1"), "{out}{err}");
    assert!(
        out.contains("FAIL TLS, API, localhost:") && out.contains("unknown issuer"),
        "{out}{err}"
    );
    Ok(())
}

#[test]
fn what_is_missing_is_said_in_one_line() -> Result<()> {
    let tools = tempfile::tempdir()?;
    for tool in ["bash", "dirname", "uname"] {
        symlink(said_by("which", &[tool])?.trim(), tools.path().join(tool))?;
    }
    let run = |arguments: &[&str]| {
        let out = Command::new("bash")
            .arg(script())
            .args(arguments)
            .env("PATH", tools.path())
            .output()?;
        anyhow::Ok((out.status.code(), String::from_utf8(out.stderr)?))
    };
    let line = |text: &str| (Some(1), format!("images/build: {text}\n"));
    let wanted = line("buildah is missing: apt-get install --no-install-recommends buildah");
    assert_eq!(run(&[])?, wanted);
    symlink("/bin/true", tools.path().join("buildah"))?;
    assert_eq!(run(&[])?, line("cargo is missing: install Rust from https://rustup.rs"));
    symlink("/bin/true", tools.path().join("cargo"))?;
    symlink("/bin/true", tools.path().join("rustc"))?;
    let triple = "aarch64-unknown-linux-gnu";
    let wanted =
        line(&format!("Rust's library for {triple} is missing: rustup target add {triple}"));
    assert_eq!(run(&["--arch", "arm64"])?, wanted);
    assert_eq!(
        run(&["--arch", "riscv64"])?,
        line("no image for riscv64; there are amd64 and arm64")
    );
    assert_eq!(run(&["--arch"])?, line("--arch wants a value"));
    let wanted = "--tag is not known; there are --arch ARCH, --repository NAME and --into FOLDER";
    assert_eq!(run(&["--tag", "x"])?, line(wanted));
    Ok(())
}
