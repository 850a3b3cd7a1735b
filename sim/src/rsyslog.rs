//! A real rsyslogd as the receiver: writes each message, byte for byte, as one line of a file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::arrival::Receiver;
use crate::forwarder::{LOOK, PATIENCE, free_port};
use crate::pki::Files;

/// Which inputs it opens.
#[derive(Debug, Clone)]
pub enum Input {
    /// imudp.
    Udp,
    /// imtcp; both framings are understood.
    Tcp,
    /// imtcp over TLS, by the driver `gtls` or `ossl`; with `mutual` only for clients with a certificate of the CA.
    Tls {
        /// `gtls` or `ossl`.
        driver: &'static str,
        /// The server's files.
        files: Files,
        /// Whether clients must show a certificate.
        mutual: bool,
    },
}

/// How it is set up, beside its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    /// So that it takes long messages, and writes what it has received.
    Roomy,
    /// The same, with the time of each message before it.
    Stamped,
    /// With the limits and settings that it has by itself.
    Stock,
}

/// A running rsyslogd; it ends with this value.
#[derive(Debug)]
pub struct Rsyslog {
    folder: TempDir,
    address: IpAddr,
    /// Where it listens.
    pub port: u16,
    input: Input,
    setup: Setup,
    priority: Option<&'static str>,
    child: Option<Child>,
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        // What has ended already cannot be ended again.
        let _ = self.end(Signal::SIGKILL);
    }
}

impl Rsyslog {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start(input: Input) -> Result<Self> {
        Self::start_with(Ipv4Addr::LOCALHOST.into(), input, Setup::Roomy).await
    }

    /// Starts it with the limits that it has by itself.
    ///
    /// # Errors
    /// As [`Rsyslog::start`].
    pub async fn start_stock(input: Input) -> Result<Self> {
        Self::start_with(Ipv4Addr::LOCALHOST.into(), input, Setup::Stock).await
    }

    /// Starts it on another address than 127.0.0.1: that of a network namespace.
    ///
    /// # Errors
    /// As [`Rsyslog::start`].
    pub async fn start_at(address: impl Into<IpAddr>, input: Input) -> Result<Self> {
        Self::start_with(address.into(), input, Setup::Roomy).await
    }

    /// Starts it so that it writes before each message the time at which it received it (RFC 3339, microseconds).
    ///
    /// # Errors
    /// As [`Rsyslog::start`].
    pub async fn start_stamped(input: Input) -> Result<Self> {
        Self::start_with(Ipv4Addr::LOCALHOST.into(), input, Setup::Stamped).await
    }

    /// Starts it with TLS as this priority string allows it: GnuTLS's own, or commands for OpenSSL's configuration.
    ///
    /// # Errors
    /// As [`Rsyslog::start`].
    pub async fn start_speaking(input: Input, priority: &'static str) -> Result<Self> {
        let address = Ipv4Addr::LOCALHOST.into();
        Self::start_prepared(address, input, Setup::Roomy, Some(priority)).await
    }

    async fn start_with(address: IpAddr, input: Input, setup: Setup) -> Result<Self> {
        Self::start_prepared(address, input, setup, None).await
    }

    async fn start_prepared(
        address: IpAddr,
        input: Input,
        setup: Setup,
        priority: Option<&'static str>,
    ) -> Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let mut rsyslog = Self { folder, address, port, input, setup, priority, child: None };
        rsyslog.again().await?;
        Ok(rsyslog)
    }

    /// Starts it again on the same port with another input.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn become_another(&mut self, input: Input) -> Result<()> {
        self.input = input;
        self.again().await
    }

    fn listens(&self) -> Result<bool> {
        Ok(match self.input {
            Input::Udp => {
                fs::read_to_string("/proc/net/udp")?.contains(&format!(":{:04X} ", self.port))
            }
            Input::Tcp | Input::Tls { .. } => TcpStream::connect((self.address, self.port)).is_ok(),
        })
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let Self { address, port, .. } = self;
        let template = if self.setup == Setup::Stamped { "stamped" } else { "raw" };
        let (limits, buffer) = match self.setup {
            Setup::Stock => ("", ""),
            Setup::Roomy | Setup::Stamped => (
                "parser.escapeControlCharactersOnReceive=\"off\" maxMessageSize=\"128k\"",
                "rcvbufSize=\"4m\"",
            ),
        };
        let input = match &self.input {
            Input::Udp => format!(
                "module(load=\"imudp\")\ninput(type=\"imudp\" {buffer} address=\"{address}\" port=\"{port}\" ruleset=\"all\")"
            ),
            Input::Tcp => format!(
                "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"{address}\" port=\"{port}\" ruleset=\"all\")"
            ),
            Input::Tls { driver, files, mutual } => {
                let mode = if *mutual { "x509/certvalid" } else { "anon" };
                let priority = self.priority.map_or_else(String::new, |priority| {
                    format!(" gnutlsPriorityString=\"{priority}\"")
                });
                let (ca, certificate, key) =
                    (files.ca.display(), files.certificate.display(), files.key.display());
                format!(
                    "global(defaultNetstreamDriver=\"{driver}\" defaultNetstreamDriverCAFile=\"{ca}\" \
                     defaultNetstreamDriverCertFile=\"{certificate}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
                     module(load=\"imtcp\" streamDriver.name=\"{driver}\" streamDriver.mode=\"1\" streamDriver.authMode=\"{mode}\"{priority})\n\
                     input(type=\"imtcp\" address=\"{address}\" port=\"{port}\" ruleset=\"all\")"
                )
            }
        };
        format!(
            "global(workDirectory=\"{folder}\" {limits})\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             template(name=\"stamped\" type=\"string\" string=\"%timegenerated:::date-rfc3339% %rawmsg%\n\")\n\
             ruleset(name=\"all\" queue.type=\"Direct\") {{ action(type=\"omfile\" file=\"{folder}/out\" template=\"{template}\" \
             asyncWriting=\"off\" flushOnTXEnd=\"on\") }}\n{input}\n"
        )
    }

    /// Sends it a signal that does not end it: SIGSTOP, SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("rsyslogd does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
    }
}

impl Receiver for Rsyslog {
    fn port(&self) -> u16 {
        self.port
    }

    async fn again(&mut self) -> Result<()> {
        let configuration = self.folder.path().join("rsyslog.conf");
        fs::write(&configuration, self.configuration())?;
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&configuration)
            .arg("-i")
            .arg(self.folder.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join("errors"))?)
            .spawn()
            .context("start rsyslogd: run tests/run, or apt-get install rsyslog rsyslog-gnutls rsyslog-openssl")?;
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while !self.listens()? {
            if Instant::now() > until {
                bail!(
                    "rsyslogd does not listen: {}",
                    fs::read_to_string(self.folder.path().join("errors"))?
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("rsyslogd does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("out")
    }
}
