//! A real syslog-ng as the receiver: writes each message, byte for byte, as one line of a file.
//!
//! It runs from where `tests/run` has unpacked it, because its package cannot stand beside rsyslog's. Parsing is off
//! unless a test is about what syslog-ng makes of a header.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::installed::installed;
use siem_agent_sim::arrival::Receiver;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, free_port};
use siem_agent_sim::pki::Files;

/// What Splunk Connect for Syslog, which is a syslog-ng, tells CEF by.
const SC4S: &str =
    "message('CEF:0' type(string) flags(substring)) or program('CEF' type(string) flags(prefix))";

/// The source's driver, which decides the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `network()`: a line feed after each message.
    Network,
    /// `syslog()`: octet counts.
    Syslog,
}

/// Which source it opens.
#[derive(Debug, Clone)]
pub enum Input {
    /// `network()` over UDP.
    Udp,
    /// Over TCP.
    Tcp(Driver),
    /// Over TCP, with the header parsed and what SC4S would not take for CEF left out. A line of the file is the time in
    /// milliseconds, the host, and the priority.
    Sc4s,
    /// Over TLS; with `mutual` only for clients with a certificate of the CA.
    Tls {
        /// The driver.
        driver: Driver,
        /// The server's files.
        files: Files,
        /// Whether clients must show a certificate.
        mutual: bool,
    },
}

/// A running syslog-ng; it ends with this value.
#[derive(Debug)]
pub struct SyslogNg {
    folder: TempDir,
    port: u16,
    input: Input,
    /// Whether it has the limits, the parser and the form of lines that it has by itself.
    is_stock: bool,
    child: Option<Child>,
}

impl Drop for SyslogNg {
    fn drop(&mut self) {
        // What has ended already cannot be ended again.
        let _ = self.end(Signal::SIGKILL);
    }
}

impl SyslogNg {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it is not unpacked or does not come up.
    pub async fn start(input: Input) -> Result<Self> {
        Self::start_with(input, false).await
    }

    /// Starts it with the limits, the parser and the form of lines that it has by itself.
    ///
    /// # Errors
    /// As [`SyslogNg::start`].
    pub async fn start_stock(input: Input) -> Result<Self> {
        Self::start_with(input, true).await
    }

    async fn start_with(input: Input, is_stock: bool) -> Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let mut syslog_ng = Self { folder, port, input, is_stock, child: None };
        syslog_ng.again().await?;
        Ok(syslog_ng)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn listens(&self) -> Result<bool> {
        Ok(match self.input {
            Input::Udp => {
                fs::read_to_string("/proc/net/udp")?.contains(&format!(":{:04X} ", self.port))
            }
            Input::Tcp(_) | Input::Sc4s | Input::Tls { .. } => {
                TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            }
        })
    }

    fn configuration(&self) -> String {
        let (name, transport) = match &self.input {
            Input::Udp if self.is_stock => ("network", "transport(udp)".to_owned()),
            Input::Udp => ("network", "transport(udp) so-rcvbuf(4194304)".to_owned()),
            Input::Tcp(driver) => (driver.name(), "transport(tcp)".to_owned()),
            Input::Sc4s => ("network", "transport(tcp)".to_owned()),
            Input::Tls { driver, files, mutual } => {
                let verify = if *mutual { "required-trusted" } else { "optional-untrusted" };
                let (ca, certificate, key) =
                    (files.ca.display(), files.certificate.display(), files.key.display());
                let tls = format!(
                    "transport(tls) tls(ca-file('{ca}') cert-file('{certificate}') key-file('{key}') peer-verify({verify}))"
                );
                (driver.name(), tls)
            }
        };
        let (flags, template, filter) = match self.input {
            Input::Sc4s => ("", r"${S_UNIXTIME}${S_MSEC} ${HOST} ${PRI}\n", SC4S),
            _ if self.is_stock => ("", r"$ISODATE $HOST $MSGHDR$MSG\n", "level(debug..emerg)"),
            _ => ("flags(no-parse)", r"${MSG}\n", "level(debug..emerg)"),
        };
        let (port, out) = (self.port, self.path("out").display().to_string());
        let limit = if self.is_stock { "" } else { "log-msg-size(131072);" };
        // What it has read is written before it reads on: the tests are about what a sender can know.
        format!(
            "@version: 3.35\n\
             options {{ threaded(no); flush-lines(1); stats-freq(0); keep-hostname(yes); use-dns(no); \
             {limit} time-zone('UTC'); recv-time-zone('UTC'); }};\n\
             source s {{ {name}(ip('127.0.0.1') port({port}) {transport} {flags}); }};\n\
             filter f {{ {filter}; }};\n\
             destination d {{ file('{out}' template(\"{template}\") template-escape(no)); }};\n\
             log {{ source(s); filter(f); destination(d); flags(flow-control); }};\n"
        )
    }
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Syslog => "syslog",
        }
    }
}

impl Receiver for SyslogNg {
    fn port(&self) -> u16 {
        self.port
    }

    async fn again(&mut self) -> Result<()> {
        let program = installed("syslog-ng/usr/sbin/syslog-ng")?;
        let root = program.ancestors().nth(3).context("find the folder of syslog-ng")?;
        let modules = only_folder(&root.join("usr/lib/syslog-ng"))?;
        fs::write(self.path("syslog-ng.conf"), self.configuration())?;
        let child = Command::new(&program)
            .args(["--foreground", "--stderr", "--no-caps"])
            .arg("--cfgfile")
            .arg(self.path("syslog-ng.conf"))
            .arg("--persist-file")
            .arg(self.path("persist"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .arg("--control")
            .arg(self.path("control"))
            .arg("--module-path")
            .arg(&modules)
            .env("LD_LIBRARY_PATH", libraries(root)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("errors"))?)
            .spawn()
            .context("start syslog-ng")?;
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while !self.listens()? {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if Instant::now() > until || ended.is_some() {
                bail!("syslog-ng does not listen: {}", fs::read_to_string(self.path("errors"))?);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("syslog-ng does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.path("out")
    }
}

/// Its modules stand in a folder named after its version.
fn only_folder(folder: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.into_iter().find(|path| path.is_dir()).context("find the modules of syslog-ng")
}

/// Its own libraries, and those of the packages beside it, whose folder is named after the machine.
fn libraries(root: &Path) -> Result<String> {
    let mut folders = vec![root.join("usr/lib/syslog-ng")];
    for library in ["usr/lib", "lib"] {
        for entry in fs::read_dir(root.join(library)).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() && path.to_string_lossy().contains("-linux-gnu") {
                folders.push(path);
            }
        }
    }
    let folders: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    Ok(folders.join(":"))
}
