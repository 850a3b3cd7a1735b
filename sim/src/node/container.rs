//! One container: waits, runs, ends, and is started again, as the kubelet has it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::environment::{Lookup, environment, expand};
use super::probe::Prober;
use super::sandbox::{self, Mount};
use super::{Image, Shared, make_folder, status};
use crate::leash::Leashed;

/// How long the first error of a pull stands before it becomes a back-off.
const PULL: Duration = Duration::from_secs(1);
/// Who ran so long has not crashed in a row.
const STEADY: Duration = Duration::from_secs(600);

/// When an ended container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting { reason: String, message: String },
    Running { started_at: String },
    Terminated(Ended),
}

#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) reason: String,
    pub(super) started_at: String,
    pub(super) finished_at: String,
}

/// What containers of a pod share.
pub(super) struct Surroundings<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pod: &'a Pod,
    pub(super) folder: &'a Path,
    pub(super) address: IpAddr,
    pub(super) volumes: &'a BTreeMap<String, PathBuf>,
    pub(super) lookup: &'a Lookup<'a>,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: Spec,
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    pub(super) n_restarts: i32,
    /// Its startup probe has passed.
    pub(super) started: bool,
    /// Its readiness probe passes.
    pub(super) ready: bool,
    process: Option<Leashed>,
    since: Instant,
    startup: Option<Prober>,
    liveness: Option<Prober>,
    readiness: Option<Prober>,
    n_crashes: u32,
    not_before: Option<Instant>,
    pulling: Option<Instant>,
    killed_at: Option<Instant>,
}

impl Container {
    pub(super) fn new(spec: Spec, why_waiting: &str) -> Self {
        let state = State::Waiting { reason: why_waiting.to_owned(), message: String::new() };
        Self {
            spec,
            state,
            last: None,
            n_restarts: 0,
            started: false,
            ready: false,
            process: None,
            since: Instant::now(),
            startup: None,
            liveness: None,
            readiness: None,
            n_crashes: 0,
            not_before: None,
            pulling: None,
            killed_at: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it has ended with 0.
    pub(super) fn has_succeeded(&self) -> bool {
        matches!(&self.state, State::Terminated(ended) if ended.code == 0)
    }

    /// Whether it has ended and stays so.
    pub(super) fn is_over(&self, again: Again) -> bool {
        match (&self.state, again) {
            (State::Terminated(_), Again::Never) => true,
            (State::Terminated(ended), Again::OnFailure) => ended.code == 0,
            _ => false,
        }
    }

    pub(super) fn wait(&mut self, reason: &str, message: String) {
        self.state = State::Waiting { reason: reason.to_owned(), message };
    }

    /// One look.
    pub(super) async fn look(&mut self, around: &Surroundings<'_>, again: Again, now: Instant) {
        if self.reap(around, now) {
            return;
        }
        if self.is_running() {
            self.probe(around, now).await;
            return;
        }
        if self.is_over(again) {
            return;
        }
        if let Some(until) = self.not_before.filter(|until| now < *until) {
            let wait = until.duration_since(self.since);
            if matches!(self.state, State::Terminated(_)) {
                let message =
                    format!("back-off {wait:?} restarting failed container={}", self.spec.name);
                self.wait("CrashLoopBackOff", message);
            }
            return;
        }
        if let Err((reason, message)) = self.start(around, now) {
            self.wait(&reason, message);
        }
    }

    /// Takes note of its end; true when it has just ended.
    pub(super) fn reap(&mut self, around: &Surroundings<'_>, now: Instant) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Ok(Some(exit)) = process.ended() else {
            let grace =
                around.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            let grace =
                Duration::from_secs(grace.and_then(|grace| grace.try_into().ok()).unwrap_or(30));
            if self.killed_at.is_some_and(|at| now.duration_since(at) >= grace) {
                self.signal(Signal::SIGKILL);
            }
            return false;
        };
        let started_at = match &self.state {
            State::Running { started_at } => started_at.clone(),
            State::Waiting { .. } | State::Terminated(_) => status::now(),
        };
        let ended = ended(exit, started_at);
        if self.since.elapsed() >= STEADY {
            self.n_crashes = 0;
        }
        self.n_crashes += 1;
        let first = around.shared.options().back_off;
        let wait = match self.n_crashes {
            1 => Duration::ZERO,
            n => first.saturating_mul(2_u32.saturating_pow(n - 2)).min(first * 10),
        };
        self.since = now;
        self.not_before = Some(now + wait);
        self.last = Some(ended.clone());
        self.state = State::Terminated(ended);
        (self.process, self.killed_at) = (None, None);
        (self.startup, self.liveness, self.readiness) = (None, None, None);
        (self.started, self.ready) = (false, false);
        around.shared.running().remove(&self.key(around));
        true
    }

    /// SIGTERM, and SIGKILL after the pod's grace; also what a failed probe does.
    pub(super) fn end(&mut self, now: Instant) {
        if self.is_running() && self.killed_at.is_none() {
            self.killed_at = Some(now);
            self.signal(Signal::SIGTERM);
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // What has ended between two looks needs none.
            let _ = process.signal(signal);
        }
    }

    async fn probe(&mut self, around: &Surroundings<'_>, now: Instant) {
        let http = &around.shared.http;
        if !self.started {
            match &mut self.startup {
                None => self.started = true,
                Some(startup) => {
                    let failed = startup.look(http, self.since, now).await;
                    self.started = startup.passed;
                    if failed {
                        self.end(now);
                    }
                }
            }
        }
        if !self.started {
            return;
        }
        if let Some(liveness) = &mut self.liveness
            && liveness.look(http, self.since, now).await
        {
            self.end(now);
        }
        self.ready = match &mut self.readiness {
            None => true,
            Some(readiness) => {
                readiness.look(http, self.since, now).await;
                readiness.passed
            }
        };
    }

    fn start(&mut self, around: &Surroundings<'_>, now: Instant) -> Result<(), (String, String)> {
        let name = self.spec.image.clone().unwrap_or_default();
        let image = around.shared.options().images.get(&name).cloned();
        let Some(image) = image else {
            let since = *self.pulling.get_or_insert(now);
            let failed = format!("failed to pull image \"{name}\": not found");
            return Err(if now.duration_since(since) < PULL {
                ("ErrImagePull".to_owned(), failed)
            } else {
                let message = format!("Back-off pulling image \"{name}\": ErrImagePull: {failed}");
                ("ImagePullBackOff".to_owned(), message)
            });
        };
        self.pulling = None;
        let wrong = |message: String| ("CreateContainerConfigError".to_owned(), message);
        let environment =
            environment(around.pod, &self.spec, around.address, around.lookup).map_err(wrong)?;
        let mounts = self.mounts(around).map_err(wrong)?;
        let mut probers = Vec::new();
        for probe in
            [&self.spec.startup_probe, &self.spec.liveness_probe, &self.spec.readiness_probe]
        {
            let prober = probe.as_ref().map(|probe| Prober::new(probe, &self.spec, around.address));
            probers.push(prober.transpose().map_err(wrong)?);
        }
        let read_only = self.spec.security_context.as_ref();
        let read_only =
            read_only.and_then(|context| context.read_only_root_filesystem) == Some(true);
        let arguments = arguments(&self.spec, &image, around.address, &environment);
        let root = around.folder.join("containers").join(&self.spec.name);
        let not_run = |message: String| ("RunContainerError".to_owned(), message);
        make_folder(&root).map_err(not_run)?;
        let mut command =
            sandbox::command(&root, &image.program, read_only, &mounts, &environment, &arguments);
        let log = self.open_log(around).map_err(|error| not_run(error.to_string()))?;
        let again = log.try_clone().map_err(|error| not_run(error.to_string()))?;
        let process = Leashed::spawn(command.stdout(log).stderr(again))
            .map_err(|error| not_run(format!("{error:#}")))?;
        around.shared.running().insert(self.key(around), process.pid());
        if self.last.is_some() {
            self.n_restarts += 1;
        }
        self.process = Some(process);
        self.since = now;
        let mut probers = probers.into_iter();
        self.startup = probers.next().flatten();
        self.liveness = probers.next().flatten();
        self.readiness = probers.next().flatten();
        self.state = State::Running { started_at: status::now() };
        Ok(())
    }

    fn mounts(&self, around: &Surroundings<'_>) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for mount in self.spec.volume_mounts.iter().flatten() {
            if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
                return Err(format!("the stand-in does not know the subPath of {}", mount.name));
            }
            let from = around.volumes.get(&mount.name);
            let from = from.ok_or_else(|| format!("there is no volume {}", mount.name))?.clone();
            let (to, read_only) = (mount.mount_path.clone(), mount.read_only == Some(true));
            mounts.push(Mount { from, to, read_only });
        }
        // A path below another one's is mounted after it.
        mounts.sort_by(|a, b| a.to.cmp(&b.to));
        Ok(mounts)
    }

    fn open_log(&self, around: &Surroundings<'_>) -> std::io::Result<File> {
        let name = around.pod.metadata.name.as_deref().unwrap_or_default();
        let path = around.shared.log(name, &self.spec.name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        File::options().create(true).append(true).open(path)
    }

    fn key(&self, around: &Surroundings<'_>) -> (String, String) {
        (around.pod.metadata.name.clone().unwrap_or_default(), self.spec.name.clone())
    }
}

fn arguments(
    spec: &Spec,
    image: &Image,
    address: IpAddr,
    environment: &BTreeMap<String, String>,
) -> Vec<String> {
    let file = image.program.file_name().unwrap_or_default().to_string_lossy();
    let own = format!("/{file}");
    let expanded = |texts: &Option<Vec<String>>| -> Vec<String> {
        texts.iter().flatten().map(|text| expand(text, environment)).collect()
    };
    let mut arguments = expanded(&spec.command);
    if arguments.is_empty() {
        arguments.push(own.clone());
    }
    arguments.extend(expanded(&spec.args));
    // Only the image's own program is known to understand them.
    if arguments.first() == Some(&own) {
        let address = BTreeMap::from([("POD_IP".to_owned(), address.to_string())]);
        arguments.extend(image.arguments.iter().map(|text| expand(text, &address)));
    }
    arguments
}

fn ended(exit: ExitStatus, started_at: String) -> Ended {
    let code = exit.code().or_else(|| exit.signal().map(|signal| 128 + signal)).unwrap_or(255);
    let reason = if code == 0 { "Completed" } else { "Error" };
    Ended { code, reason: reason.to_owned(), started_at, finished_at: status::now() }
}
