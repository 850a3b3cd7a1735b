//! The task that owns the connection: connects, writes in order, confirms, and begins anew when a connection breaks.
//!
//! One connection at a time. The read half is read from the first moment to the last, because that is where a refusal,
//! a FIN or an alert shows. A syslog receiver only listens: a peer that answers with data is another kind of server (HTTP,
//! SMTP, Redis), and what it has acknowledged is not delivered.

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
use super::health::{Health, Verdict};
use super::in_flight::InFlight;
use super::pending::Job;
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
/// Why a session ended.
enum End {
    /// The peer closed or the connection broke.
    Broken { kind: &'static str, reason: String },
    /// Our certificates changed; everything was confirmed.
    Rotated,
    /// The program stops, or nobody needs the sink any more.
    Finished,
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
    let mut in_flight = InFlight::default();
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
        let mut confirmed = false;
        let reason = match attempt {
            Ok(connection) => {
                let mut session = Session {
                    settings: &settings,
                    in_flight: &mut in_flight,
                    jobs: &mut jobs,
                    target: &target,
                    observer: observer.as_ref(),
                    keeper: &mut keeper,
                };
                match session.run(connection, &mut stop, &mut confirmed).await {
                    End::Finished => return,
                    End::Rotated => {
                        info!("certificates changed, reconnecting");
                        continue;
                    }
                    End::Broken { kind, reason } => {
                        observer.disconnected(kind);
                        reason
                    }
                }
            }
            Err(error) => {
                observer.disconnected("connect");
                chain(&error)
            }
        };
        in_flight.rewind();
        if confirmed || began.elapsed() >= HEALTHY {
            backoff.reset();
        }
        let wait = backoff.next(fastrand::f64());
        warn!(
            reason,
            retry_in_ms = millis(wait),
            "no connection to the target"
        );
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
    in_flight: &'a mut InFlight,
    jobs: &'a mut mpsc::UnboundedReceiver<Job>,
    target: &'a watch::Sender<Target>,
    observer: &'a dyn Observer,
    keeper: &'a mut Keeper,
}

type Writer = WriteHalf<Box<dyn Duplex>>;

impl Session<'_> {
    async fn run(
        &mut self,
        connection: Connection,
        stop: &mut watch::Receiver<bool>,
        confirmed: &mut bool,
    ) -> End {
        let Connection { stream, written, kernel, with_client_certificate, server_ends: _ } =
            connection;
        let peer = match self.settings.transport {
            Transport::Tls { .. } => Some(Peer { side: Side::Syslog, with_client_certificate }),
            Transport::Udp | Transport::Tcp => None,
        };
        let (mut reader, writer) = tokio::io::split(stream);
        let mut idle_writer = Some(writer);
        let mut write = Box::pin(write_whole(None));
        let mut writing = false;

        let opened = Instant::now();
        let settle = if with_client_certificate {
            self.settings.grace.max(LATE_REFUSAL)
        } else {
            self.settings.grace
        };
        let mut first_grace = with_client_certificate.then_some(LATE_REFUSAL);
        let mut announced = false;
        let announce = sleep(settle);
        tokio::pin!(announce);

        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut material = interval(MATERIAL_INTERVAL);
        material.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rotate = false;
        let mut stopping = *stop.borrow();
        let mut handles_gone = false;
        let mut scratch = [0_u8; 512];
        let mut health = Health::default();

        loop {
            if stopping {
                self.in_flight.drop_unwritten();
            }
            if (stopping || handles_gone || rotate) && !writing && self.in_flight.is_empty() {
                if let Some(writer) = idle_writer {
                    close(writer, &mut reader).await;
                }
                return if stopping || handles_gone { End::Finished } else { End::Rotated };
            }
            if !rotate && let Some(writer) = idle_writer.take() {
                match self.in_flight.start_write() {
                    Some((bytes, n_again)) => {
                        self.observer.resent(n_again);
                        write = Box::pin(write_whole(Some((writer, bytes))));
                        writing = true;
                    }
                    None => idle_writer = Some(writer),
                }
            }
            tokio::select! {
                biased;
                read = reader.read(&mut scratch) => match read {
                    Ok(0) => return broken("closed", closed(peer)),
                    Ok(_) => {
                        let reason = "the peer answers with data: it is no syslog receiver; \
                                      check the host and port of the SIEM's syslog input";
                        return broken("talks", reason.to_owned());
                    }
                    Err(error) => return broken_by(&error, peer),
                },
                (writer, result) = &mut write, if writing => {
                    writing = false;
                    idle_writer = writer;
                    if let Err(error) = result {
                        // The read half often knows more: an alert says why, a broken pipe does not.
                        let told = timeout(LOOK_INTERVAL, reader.read(&mut scratch)).await;
                        return match told {
                            Ok(Err(read_error)) => broken_by(&read_error, peer),
                            Ok(Ok(_)) | Err(_) => broken_by(&error, peer),
                        };
                    }
                    self.in_flight.finish_write(written.load(Ordering::Relaxed));
                    if mutated() {
                        self.in_flight.acknowledge(u64::MAX, Instant::now());
                        *confirmed |= self.in_flight.confirm(Duration::ZERO, Instant::now()) > 0;
                    }
                }
                // Up where confirmations come, or where nothing waits for one.
                () = &mut announce, if !announced && (*confirmed || !self.in_flight.awaits_confirmation()) => {
                    announced = true;
                    info!(host = self.settings.host, port = self.settings.port, "connected to the target");
                    self.target.send_replace(Target::Up { since: clock::now() });
                }
                _ = look.tick(), if self.in_flight.awaits_confirmation() => {
                    let seen = match kernel.look() {
                        Ok(seen) => seen,
                        Err(error) => return broken_by(&error, peer),
                    };
                    let now = Instant::now();
                    self.in_flight.acknowledge(seen.bytes_acked, now);
                    if seen.established {
                        let grace = first_grace.map_or(self.settings.grace, |first| first.max(self.settings.grace));
                        if self.in_flight.confirm(grace, now) > 0 {
                            first_grace = None;
                            *confirmed = true;
                        }
                    }
                    let owes = self.in_flight.awaits_confirmation();
                    match health.judge(&seen, owes, now) {
                        Verdict::Well if matches!(*self.target.borrow(), Target::Stalled { .. }) => {
                            info!("the target takes records again");
                            self.target.send_replace(Target::Up { since: clock::now() });
                        }
                        Verdict::Well => {}
                        Verdict::Stalled if matches!(*self.target.borrow(), Target::Stalled { .. }) => {}
                        Verdict::Stalled => {
                            warn!("the target keeps the connection and takes nothing");
                            self.target.send_modify(|state| *state = state.stalled(clock::now()));
                        }
                        Verdict::GivenUp => {
                            return broken("stalled", "the target has taken nothing for ten minutes".to_owned());
                        }
                        Verdict::Gone => {
                            return broken("timeout", "the target's host has not answered for 20 seconds".to_owned());
                        }
                    }
                }
                job = self.jobs.recv(), if !handles_gone && !stopping => match job {
                    Some(job) => self.in_flight.push(job),
                    None => handles_gone = true,
                },
                _ = material.tick(), if !rotate => {
                    rotate = self.keeper.changed() && opened.elapsed() >= MATERIAL_INTERVAL;
                }
                () = stopped(stop), if !stopping => stopping = true,
            }
        }
    }
}

/// A mutation for the tests, off in what ships: confirm what is written, as other senders do, and lose records.
fn mutated() -> bool {
    fail::fail_point!("confirm_when_written", |_| true);
    false
}

fn broken(kind: &'static str, reason: String) -> End {
    End::Broken { kind, reason }
}

fn broken_by(error: &io::Error, peer: Option<Peer>) -> End {
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
    broken(kind, reason)
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
