//! Which agent the command line names: by the file that the operator writes, or by a manifest with flags.
//!
//! A flag that stands in for a part of a manifest is refused beside `--config` and never passed over in silence; what it
//! was given is not repeated, because it may be a token.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;

/// Where the files of the Secrets lie, unless a flag says otherwise.
const SECRETS: &str = "/etc/siem-forwarder/secrets";

/// An agent inside a pod or outside Kubernetes.
#[derive(Debug, Clone, Args)]
pub(super) struct AgentArguments {
    #[command(flatten)]
    file: FileArguments,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct FileArguments {
    /// The configuration that the operator writes; in a pod /etc/siem-forwarder/config/config.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The `SiemAgent`, as `kubectl apply` takes it.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// An agent outside Kubernetes.
#[derive(Debug, Clone, Args)]
pub(super) struct ManifestArguments {
    /// The `SiemAgent`, as `kubectl apply` takes it.
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: PathBuf,
    #[command(flatten)]
    pub(super) overrides: Overrides,
}

/// What a flag may say instead of the manifest; the flag wins, and the log says so.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Overrides {
    /// Holds DIR/NAME/KEY for each key of a Secret or ConfigMap, as a pod would mount them. Default:
    /// /etc/siem-forwarder/secrets
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// The API token. Visible in the process list; the program re-executes itself to hide it. Prefer --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(super) token: Option<String>,
    /// A file with the API token.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The proxy on the way to the API; port 8080 unless given.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(super) proxy: Option<String>,
}

impl Overrides {
    pub(super) fn secrets(&self) -> &Path {
        self.secrets.as_deref().unwrap_or_else(|| Path::new(SECRETS))
    }
}

/// The one file that describes the agent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    /// What the operator wrote. A running forwarder may have the same file.
    Config(&'a Path),
    /// A manifest, with the flags that win over it.
    Manifest(&'a Path, &'a Overrides),
}

impl AgentArguments {
    /// The file that is given, with flags that fit it. `--state-dir`, which not every command has, is one of these.
    pub(super) fn given(&self, has_state_dir: bool) -> Result<Given<'_>, Failure> {
        let Self { file: FileArguments { config, manifest }, overrides } = self;
        match (config, manifest) {
            (None, Some(manifest)) => Ok(Given::Manifest(manifest, overrides)),
            (Some(config), None) => {
                refuse_flags(overrides, has_state_dir)?;
                Ok(Given::Config(config))
            }
            // clap has refused these already.
            (None, None) | (Some(_), Some(_)) => {
                Err(Failure::Settings("give one of --config and --manifest".to_owned()))
            }
        }
    }
}

/// Flags that mean nothing beside a configuration, a line each.
fn refuse_flags(overrides: &Overrides, has_state_dir: bool) -> Result<(), Failure> {
    let Overrides { secrets, token, token_file, proxy } = overrides;
    let of_token = "the configuration names the token's Secret; change that Secret";
    let flags = [
        (
            "--secrets",
            secrets.is_some(),
            "the configuration says where Secrets lie (paths.secrets); leave the flag out",
        ),
        ("--token", token.is_some(), of_token),
        ("--token-file", token_file.is_some(), of_token),
        (
            "--proxy",
            proxy.is_some(),
            "the configuration has the proxy; change spec.source.proxy of the SiemAgent",
        ),
        (
            "--state-dir",
            has_state_dir,
            "the configuration says where the state lies (paths.state); leave the flag out",
        ),
    ];
    let refused: Vec<String> = flags
        .into_iter()
        .filter(|(_, is_given, _)| *is_given)
        .map(|(flag, _, instead)| {
            format!(
                "{flag} cannot be used with --config: {instead}, or use --manifest with the \
                 SiemAgent's file"
            )
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(Failure::Settings(refused.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::super::{Cli, Command};
    use super::*;

    /// The three commands that take either file, with what else each needs.
    const COMMANDS: [&[&str]; 3] = [
        &["run"],
        &["check"],
        &["replay", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"],
    ];

    fn parse(command: &[&str], more: &[&str]) -> Result<(AgentArguments, bool), clap::Error> {
        let arguments = [&["siem-forwarder"], command, more].concat();
        Ok(match Cli::try_parse_from(arguments)?.command {
            Command::Run(run) => (run.agent, run.state_dir.is_some()),
            Command::Check(check) => (check.agent, false),
            Command::Replay(replay) => (replay.agent, false),
            other => panic!("{other:?} takes a manifest only"),
        })
    }

    #[test]
    fn exactly_one_file_describes_the_agent() {
        for command in COMMANDS {
            let refused = parse(command, &[]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument, "{command:?}");
            let words = refused.to_string();
            assert!(words.contains("--config") && words.contains("--manifest"), "{words}");
            let refused = parse(command, &["--config", "a", "--manifest", "b"]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ArgumentConflict, "{command:?}");

            let (agent, _) = parse(command, &["--config", "a"]).unwrap();
            assert!(matches!(agent.given(false).unwrap(), Given::Config(path) if path == "a"));
            let (agent, _) = parse(command, &["--manifest", "b", "--token-file", "c"]).unwrap();
            let Given::Manifest(path, overrides) = agent.given(false).unwrap() else {
                panic!("{command:?}: a manifest");
            };
            assert_eq!((path, overrides.secrets()), (Path::new("b"), Path::new(SECRETS)));
            assert_eq!(overrides.token_file.as_deref(), Some(Path::new("c")));
        }
    }

    #[test]
    fn a_flag_of_manifests_is_refused_beside_a_configuration_without_its_value() {
        for command in COMMANDS {
            for (flag, way_out) in [
                ("--secrets", "paths.secrets"),
                ("--token", "change that Secret"),
                ("--token-file", "change that Secret"),
                ("--proxy", "spec.source.proxy"),
                ("--state-dir", "paths.state"),
            ] {
                let parsed = parse(command, &["--config", "a", flag, "PLANTED"]);
                let Ok((agent, has_state_dir)) = parsed else {
                    assert_eq!((flag, command == ["run"]), ("--state-dir", false), "{command:?}");
                    continue;
                };
                let words = agent.given(has_state_dir).unwrap_err().to_string();
                let begin = format!("{flag} cannot be used with --config: ");
                assert!(words.starts_with(&begin) && words.contains(way_out), "{words}");
                assert!(words.contains("--manifest") && words.lines().count() == 1, "{words}");
                assert!(!words.contains("PLANTED"), "{words}");
            }
            let all = ["--config", "a", "--secrets", "b", "--token-file", "c", "--proxy", "d"];
            let (agent, _) = parse(command, &all).unwrap();
            let words = agent.given(false).unwrap_err().to_string();
            assert_eq!(words.lines().count(), 3, "a line each: {words}");
        }
    }

    #[test]
    fn a_sidecar_needs_a_configuration() {
        let sidecar = ["--sidecar-of", "Deployment/collector"];
        assert!(parse(&["run"], &[&sidecar[..], &["--config", "a"]].concat()).is_ok());
        assert!(parse(&["run"], &[&sidecar[..], &["--manifest", "a"]].concat()).is_err());
    }
}
