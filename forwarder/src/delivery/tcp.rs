//! The task that owns the connection, TCP or TLS: connects, reads, writes, and connects again when a connection breaks.
//!
//! One connection at a time. It decides nothing about confirmation: `session` does, from what is read, written and
//! acknowledged. The read half is read from the first moment to the last, because that is where a refusal, a FIN or an
//! alert shows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use siem_agent_edge::clock;
use siem_agent_edge::error_chain::chain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::connect::{Connection, connect};
use super::in_flight::InFlight;
use super::pending::Job;
use super::session::{Action, Cause, Closing, Next, Report, Rules, SessionState};
use super::settings::{Settings, Transport};
use super::target::{Observer, Role, Target};
use crate::duplex::Duplex;
use crate::retry::Backoff;
use crate::time::millis;
use crate::tls::{self, Keeper, Peer, Side};

/// How often the kernel is asked for acknowledgements while some are awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A TLS 1.3 server may refuse a client certificate after the handshake looks complete (RFC 8446, section 4.4.2.4).
const LATE_REFUSAL: Duration = Duration::from_secs(2);
const RECONNECT_MIN: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// A connection that lived this long, or confirmed something, ends a row of failures.
const HEALTHY: Duration = Duration::from_secs(10);
/// How often certificates and keys are looked at for a change.
const MATERIAL_INTERVAL: Duration = Duration::from_secs(10);
/// The same while there is no connection.
const PAUSE_INTERVAL: Duration = Duration::from_secs(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection ended.
enum End {
    /// It was closed in order.
    Closed(Closing),
    /// The peer closed it, or it broke.
    Broken {
        kind: &'static str,
        reason: String,
        /// Whether it had confirmed anything.
        confirmed: bool,
    },
}

/// Runs until `stop` and everything written is confirmed, or every handle is gone.
pub(super) async fn run(
    settings: Settings,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    target: watch::Sender<Target>,
    observer: Arc<dyn Observer>,
    mut stop: watch::Receiver<bool>,
) {
    let mut keeper = Keeper::new(match &settings.transport {
        Transport::Tls { material, .. } => Some(material.clone()),
        Transport::Udp | Transport::Tcp => None,
    });
    let mut in_flight = InFlight::new();
    let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
    loop {
        let attempt = tokio::select! {
            attempt = connect(&settings, &mut keeper) => attempt,
            () = stopped(&mut stop) => return,
        };
        // Ours is known before the peer has agreed to it.
        observer.certificate_ends(Role::Client, keeper.client_ends());
        if let Ok(connection) = &attempt {
            observer.certificate_ends(Role::Server, connection.server_ends);
        }
        let began = Instant::now();
        let (reason, confirmed) = match attempt {
            Ok(connection) => {
                let mut session = Session {
                    settings: &settings,
                    in_flight: &mut in_flight,
                    jobs: &mut jobs,
                    target: &target,
                    observer: observer.as_ref(),
                    keeper: &mut keeper,
                };
                match session.run(connection, &mut stop).await {
                    End::Closed(Closing::Finished) => return,
                    End::Closed(Closing::Rotated) => {
                        info!("certificates changed, reconnecting");
                        continue;
                    }
                    End::Broken { kind, reason, confirmed } => {
                        observer.disconnected(kind);
                        (reason, confirmed)
                    }
                }
            }
            Err(error) => {
                observer.disconnected("connect");
                (chain(&error), false)
            }
        };
        in_flight.rewind();
        if confirmed || began.elapsed() >= HEALTHY {
            backoff.reset();
        }
        let wait = backoff.next(fastrand::f64());
        warn!(reason, retry_in_ms = millis(wait), "no connection to the target");
        target.send_modify(|state| *state = state.failed(clock::now(), reason));
        tokio::select! {
            () = pause(wait, &mut keeper) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Waits so long, or until other certificates are there, which may be what was missing.
async fn pause(wait: Duration, keeper: &mut Keeper) {
    let until = Instant::now() + wait;
    while Instant::now() < until && !keeper.changed() {
        sleep(PAUSE_INTERVAL.min(until - Instant::now())).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that the program ends as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Session<'a> {
    settings: &'a Settings,
    in_flight: &'a mut InFlight<Job>,
    jobs: &'a mut mpsc::UnboundedReceiver<Job>,
    target: &'a watch::Sender<Target>,
    observer: &'a dyn Observer,
    keeper: &'a mut Keeper,
}

type Writer = WriteHalf<Box<dyn Duplex>>;

impl Session<'_> {
    /// One connection until it ends: reports each event to the state machine, and does what comes back.
    async fn run(&mut self, connection: Connection, stop: &mut watch::Receiver<bool>) -> End {
        let Connection { stream, written, kernel, with_client_certificate, server_ends: _ } =
            connection;
        let Settings { transport, grace, .. } = self.settings;
        let peer = match transport {
            Transport::Tls { .. } => Some(Peer { side: Side::Syslog, with_client_certificate }),
            Transport::Udp | Transport::Tcp => None,
        };
        let rules = Rules {
            grace: *grace,
            first_grace: if with_client_certificate { LATE_REFUSAL.max(*grace) } else { *grace },
            confirms_when_written: mutated(),
        };
        let mut state = SessionState::new(rules, self.in_flight);
        if *stop.borrow() {
            state.on_stop();
        }
        let report = Reporter { settings: self.settings, target: self.target };

        let opened = Instant::now();
        let (mut reader, writer) = tokio::io::split(stream);
        let mut idle_writer = Some(writer);
        let mut write = Box::pin(write_whole(None));
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut material = interval(MATERIAL_INTERVAL);
        material.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when nothing can have changed.
        material.reset();
        let mut scratch = [0_u8; 512];
        loop {
            match state.next() {
                Next::Write { batch, is_again } => {
                    if is_again {
                        self.observer.resent(batch.batch.n_records());
                    }
                    let bytes = batch.batch.bytes().clone();
                    write = Box::pin(write_whole(idle_writer.take().map(|writer| (writer, bytes))));
                }
                Next::Close(closing) => {
                    if let Some(writer) = idle_writer {
                        close(writer, &mut reader).await;
                    }
                    return End::Closed(closing);
                }
                Next::Wait => {}
            }
            let event = tokio::select! {
                biased;
                read = reader.read(&mut scratch) => read.map(|n_bytes| state.on_read(n_bytes)),
                (writer, result) = &mut write, if idle_writer.is_none() => {
                    idle_writer = writer;
                    match result {
                        Ok(()) => {
                            Ok(state.on_written(written.load(Ordering::Relaxed), opened.elapsed()))
                        }
                        Err(error) => {
                            // The read half often knows more: an alert says why, a broken pipe does not.
                            let told = timeout(LOOK_INTERVAL, reader.read(&mut scratch)).await;
                            Err(match told {
                                Ok(Err(read_error)) => read_error,
                                Ok(Ok(_)) | Err(_) => error,
                            })
                        }
                    }
                }
                _ = ticks.tick(), if state.needs_ticks() => {
                    kernel.look().map(|look| state.on_tick(&look, opened.elapsed()))
                }
                job = self.jobs.recv(), if state.takes_batches() => Ok(match job {
                    Some(job) => state.on_batch(job),
                    None => state.on_last_batch(),
                }),
                _ = material.tick(), if state.may_rotate() => Ok(if self.keeper.changed() {
                    state.on_new_certificates()
                } else {
                    Action::none()
                }),
                () = stopped(stop), if state.may_stop() => Ok(state.on_stop()),
            };
            let confirmed = state.has_confirmed();
            let Action { confirmed: delivered, report: news, broken } = match event {
                Ok(action) => action,
                Err(error) => return broken_by(&error, peer, confirmed),
            };
            delivered.into_iter().for_each(|job| job.confirm(0));
            if let Some(news) = news {
                report.publish(news);
            }
            if let Some(cause) = broken {
                return given_up(cause, peer, confirmed);
            }
        }
    }
}

/// Logs and publishes what has become of the target.
struct Reporter<'a> {
    settings: &'a Settings,
    target: &'a watch::Sender<Target>,
}

impl Reporter<'_> {
    fn publish(&self, report: Report) {
        match report {
            Report::Up => {
                let Settings { host, port, .. } = self.settings;
                info!(host, port, "connected to the target");
                self.target.send_replace(Target::Up { since: clock::now() });
            }
            Report::Recovered => {
                info!("the target takes records again");
                self.target.send_replace(Target::Up { since: clock::now() });
            }
            Report::Stalled => {
                warn!("the target keeps the connection and takes nothing");
                self.target.send_modify(|state| *state = state.stalled(clock::now()));
            }
        }
    }
}

/// A mutation for the tests, off in what ships: confirm what is written, as other senders do, and lose records.
fn mutated() -> bool {
    fail::fail_point!("confirm_when_written", |_| true);
    false
}

fn given_up(cause: Cause, peer: Option<Peer>, confirmed: bool) -> End {
    let (kind, reason) = match cause {
        Cause::Closed => ("closed", closed(peer)),
        Cause::Talks => (
            "talks",
            "the peer answers with data: it is no syslog receiver; \
             check the host and port of the SIEM's syslog input"
                .to_owned(),
        ),
        Cause::Stalled => ("stalled", "the target has taken nothing for ten minutes".to_owned()),
        Cause::Gone => ("timeout", "the target's host has not answered for 20 seconds".to_owned()),
    };
    End::Broken { kind, reason, confirmed }
}

fn broken_by(error: &io::Error, peer: Option<Peer>, confirmed: bool) -> End {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::InvalidData => "tls",
        io::ErrorKind::UnexpectedEof => "closed",
        _ => "other",
    };
    let reason = match (peer, tls::failure(error)) {
        (Some(peer), Some(failure)) => peer.explain(failure).to_string(),
        (_, None) if error.kind() == io::ErrorKind::UnexpectedEof => closed(peer),
        _ => error.to_string(),
    };
    End::Broken { kind, reason, confirmed }
}

fn closed(peer: Option<Peer>) -> String {
    let hint = peer.and_then(Peer::closed).unwrap_or("see its log");
    format!("the peer closed the connection; {hint}")
}

/// Writes a batch whole and gives the writer back; without a batch it never ends.
async fn write_whole(work: Option<(Writer, Bytes)>) -> (Option<Writer>, io::Result<()>) {
    let Some((mut writer, bytes)) = work else { return std::future::pending().await };
    let result = async {
        writer.write_all(&bytes).await?;
        writer.flush().await
    }
    .await;
    (Some(writer), result)
}

/// Says goodbye: `close_notify` on TLS, FIN on both; then reads what the peer still says, so that no reset overtakes.
async fn close(mut writer: Writer, reader: &mut ReadHalf<Box<dyn Duplex>>) {
    let mut scratch = [0_u8; 512];
    let goodbye = async {
        if writer.shutdown().await.is_ok() {
            while matches!(reader.read(&mut scratch).await, Ok(n_bytes) if n_bytes > 0) {}
        }
    };
    // The peer may be gone; everything is confirmed, so nothing depends on its answer.
    let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
}
