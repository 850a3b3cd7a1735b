//! The archives of both architectures become one image, by the same Dockerfile and `images/release`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_sim::images::Images;

use super::ROOT;
use super::archive::Archive;

/// Runs buildah with a store of its own in the folder.
fn buildah(folder: &Path, arguments: &[&str]) -> Result<()> {
    let out = Command::new("buildah")
        .args(["--root", "root", "--runroot", "run", "--storage-driver", "vfs"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .context("run buildah")?;
    ensure!(out.status.success(), "buildah: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// Writes an archive for another architecture into the folder. The Dockerfile compiles nothing, so any bytes will do.
fn image_for(folder: &Path, arch: &str, program: &str, like: &Archive) -> Result<()> {
    let context = folder.join("context").join(arch);
    fs::create_dir_all(&context)?;
    fs::write(context.join(program), format!("{program} for {arch}"))?;
    let argument = |label: &str| {
        let value = &like.config["config"]["Labels"][format!("org.opencontainers.image.{label}")];
        anyhow::Ok(format!("{}={}", label.to_uppercase(), value.as_str().context("a label")?))
    };
    let (version, revision) = (argument("version")?, argument("revision")?);
    let platform = format!("linux/{arch}");
    let file = Path::new(ROOT).join("images/Dockerfile");
    let file = file.to_str().context("a path")?;
    buildah(
        folder,
        &[
            "build",
            "--quiet",
            "--format",
            "oci",
            "--platform",
            &platform,
            "--target",
            program,
            "--tag",
            &like.name,
            "--build-arg",
            &version,
            "--build-arg",
            &revision,
            "--file",
            file,
            "context",
        ],
    )?;
    buildah(
        folder,
        &[
            "push",
            "--quiet",
            &like.name,
            &format!("oci-archive:{program}-{arch}.tar:{}", like.name),
        ],
    )
}

fn release(folder: &Path, into: &Path) -> Result<Output> {
    let script = Path::new(ROOT).join("images/release");
    Command::new(script).arg(folder).arg("--into").arg(into).output().context("run images/release")
}

#[tokio::test]
async fn both_architectures_become_one_image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (at, into) = (folder.path(), folder.path().join("out"));
    let (own, other) =
        if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let path = at.to_str().context("a path")?;
    let built = Images::build_with(&["--arch", own, "--into", path]).await?;

    let out = release(at, &into)?;
    let error = String::from_utf8(out.stderr)?;
    let wanted = format!(
        "images/release: siem-operator-{other}.tar is missing: run images/build --arch {other} "
    );
    assert!(!out.status.success() && error.starts_with(&wanted), "{error}");

    let programs = [
        ("siem-operator", &built.operator, &built.operator_name),
        ("siem-forwarder", &built.forwarder, &built.forwarder_name),
    ];
    for (program, archive, _) in programs {
        image_for(at, other, program, &Archive::open(archive)?)?;
    }
    let out = release(at, &into)?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lines = String::from_utf8(out.stdout)?;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for (line, (program, archive, name)) in lines.lines().zip(programs) {
        let layout = into.join(program);
        let json = |path: &str| {
            anyhow::Ok(serde_json::from_slice::<Value>(&fs::read(layout.join(path))?)?)
        };
        let digest =
            json("index.json")?["manifests"][0]["digest"].as_str().context("a digest")?.to_owned();
        let repository = name.rsplit_once(':').context("a name with a version")?.0;
        assert_eq!(line, format!("{repository}@{digest}"));
        let index = json(&format!("blobs/{}", digest.replace(':', "/")))?;
        let of = |arch: &str| {
            let manifests = index["manifests"].as_array()?;
            manifests.iter().find(|manifest| manifest["platform"]["architecture"] == *arch)
        };
        // What was tested is what is released: the image of an architecture keeps its digest.
        for (arch, archive) in
            [(own, archive.clone()), (other, at.join(format!("{program}-{other}.tar")))]
        {
            let manifest = of(arch).with_context(|| format!("{arch} in {index}"))?;
            assert_eq!(manifest["digest"], Archive::open(&archive)?.digest);
        }
    }

    // One archive under the name of the other.
    fs::copy(&built.forwarder, at.join(format!("siem-forwarder-{other}.tar")))?;
    let out = release(at, &into)?;
    let error = String::from_utf8(out.stderr)?;
    assert!(!out.status.success() && error.contains(&format!("is not for {other}")), "{error}");
    Ok(())
}
