//! A source in memory, and the whole loop on it under paused time: a day takes less than a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_crds::position::Position;
use siem_agent_crds::report::AgentIdentity;
use siem_agent_crds::siem_agent::StreamSource;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Forwarder, run};
use crate::checkpoint::Checkpoint;
use crate::delivery::Delivered;
use crate::delivery::settings::{Settings as Target, Transport};
use crate::delivery::sink::Sink;
use crate::event::{Activity, Alert, Event, Stream};
use crate::map::{Dialect, Format};
use crate::pipeline::clearance::{Clearance, Gates};
use crate::plan::Plan;
use crate::progress::{Identity, Progress};
use crate::record::{Mark, RecordKey};
use crate::saver::Saver;
use crate::secret::{self, Secret};
use crate::source::failure::{Failure, Refusal};
use crate::source::http::gate::Gate;
use crate::source::purpose::Purpose;
use crate::source::{Due, Failed, Listed, Offer, PageRead, Reader, Source, Start};
use crate::store::Store;
use crate::syslog::{Framing, Header, Layout, TimeFormat};
use crate::time::{Millis, millis};

const INTERVAL: Duration = Duration::from_secs(4);
const BOTH: [Stream; 2] = [Stream::Alerts, Stream::Activities];
const PAGE: usize = 7;

/// The other side: what it holds, whom it lets in, and what it was asked.
#[derive(Debug)]
struct World {
    began: Instant,
    /// An event a stream in so many seconds.
    seconds_an_event: u64,
    stored: Option<String>,
    dead: BTreeSet<String>,
    forbidden: BTreeSet<Stream>,
    /// What is answered first.
    failures: VecDeque<Failure>,
    asked: Vec<(Stream, Millis, Option<String>)>,
}

#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<World>>);

#[derive(Debug)]
struct MemoryReader {
    world: Memory,
    stream: Stream,
    next_poll: Instant,
    /// So many events are delivered.
    n_through: u64,
    /// Events of the page that is read, and how many of them are not accounted for.
    page: Option<(std::ops::Range<u64>, usize)>,
    has_more: bool,
}

impl Memory {
    fn new() -> Self {
        let world = World {
            began: Instant::now(),
            seconds_an_event: 10,
            stored: Some("first".to_owned()),
            dead: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            failures: VecDeque::new(),
            asked: Vec::new(),
        };
        Self(Arc::new(Mutex::new(world)))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn answer(&self, stream: Stream, offer: Offer) -> Result<(), Failed> {
        let mut world = self.lock();
        let secret = offer.into_secret().ok().map(|secret| secret.expose().to_owned());
        let at = millis(world.began.elapsed());
        let refusal = match &secret {
            None => Some(Failure::Refused(Refusal::Missing)),
            Some(secret) if world.dead.contains(secret) => {
                Some(Failure::Refused(Refusal::Credential))
            }
            Some(_) if world.forbidden.contains(&stream) => Some(Failure::Refused(Refusal::Stream)),
            Some(_) => None,
        };
        world.asked.push((stream, at, secret));
        match world.failures.pop_front().or(refusal) {
            Some(failure) => {
                Err(Failed { failure, reason: "as the test has it".to_owned(), code: None })
            }
            None => Ok(()),
        }
    }

    /// The requests after this second.
    fn asked_after(&self, second: i64) -> Vec<(Stream, Millis, Option<String>)> {
        let after = |asked: &&(Stream, Millis, Option<String>)| asked.1 > second * 1_000;
        self.lock().asked.iter().filter(after).cloned().collect()
    }

    fn n_events(&self) -> u64 {
        let world = self.lock();
        world.began.elapsed().as_secs() / world.seconds_an_event
    }
}

impl Source for Memory {
    type Reader = MemoryReader;

    fn offer(&self) -> Offer {
        let stored = self.lock().stored.clone().map(Secret::of);
        Offer::of(stored.ok_or_else(|| secret::Error::Missing { path: PathBuf::from("secret") }))
    }

    fn reader(&self, stream: Stream, start: &Start) -> MemoryReader {
        let n_through = match start {
            Start::Anew(_) | Start::Switched { .. } => 0,
            Start::At { at, .. } => at.position.read().unwrap(),
        };
        let world = self.clone();
        let (page, has_more, next_poll) = (None, false, Instant::now());
        MemoryReader { world, stream, next_poll, n_through, page, has_more }
    }

    async fn check(&self, stream: Stream, offer: Offer) -> Result<(), Failed> {
        self.answer(stream, offer)
    }
}

impl Reader for MemoryReader {
    fn due(&mut self) -> Due {
        match self.next_poll.checked_duration_since(Instant::now()) {
            Some(wait) if !wait.is_zero() => Due::In(wait),
            Some(_) | None => Due::Poll(Purpose::Poll),
        }
    }

    fn begin(&mut self) {
        self.next_poll = Instant::now() + INTERVAL;
    }

    async fn ask(&mut self, offer: Offer) -> Result<(), Failed> {
        sleep(Duration::from_millis(50)).await;
        self.world.answer(self.stream, offer)?;
        let n_events = self.world.n_events();
        let end = n_events.min(self.n_through + PAGE as u64);
        self.has_more = end < n_events;
        self.page = Some((self.n_through..end, 0));
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Vec<Listed>>, Failed> {
        let Some((events, outstanding)) = &mut self.page else { return Ok(None) };
        let listed: Vec<_> = std::mem::take(events)
            .map(|number| {
                let (id, timestamp) = (format!("{}-{number}", self.stream), 1_790_000_000_000);
                let key = RecordKey::from_bits(number);
                let event = match self.stream {
                    Stream::Alerts => {
                        Event::Alert(Box::new(Alert { id, timestamp, ..Alert::default() }))
                    }
                    Stream::Activities => {
                        Event::Activity(Box::new(Activity { id, timestamp, ..Activity::default() }))
                    }
                };
                let mark = Mark::with_event_time(key, timestamp, timestamp);
                Listed::New { event, mark, is_late: false }
            })
            .collect();
        *outstanding += listed.len();
        Ok(Some(listed).filter(|listed| !listed.is_empty()))
    }

    fn abandon(&mut self) {}

    fn skip(&mut self, _: &Mark) {
        panic!("every event has a message");
    }

    fn delivered(&mut self, delivered: Delivered) {
        let (_, outstanding) = self.page.as_mut().unwrap();
        *outstanding -= delivered.n_delivered();
        self.n_through += delivered.n_delivered() as u64;
    }

    fn page_read(&mut self) -> PageRead {
        let (_, outstanding) = self.page.take().unwrap();
        assert_eq!(outstanding, 0, "a page is read once all of it is delivered");
        PageRead { next: Ok(self.has_more), ..PageRead::default() }
    }

    fn failed(&mut self) {
        (self.page, self.next_poll) = (None, Instant::now());
    }

    fn through(&self) -> Millis {
        1_790_000_000_000 + i64::try_from(self.n_through).unwrap()
    }

    fn last_event(&self) -> Option<Millis> {
        None
    }

    fn position(&self) -> Position {
        Position::of(&self.n_through)
    }

    fn kept(&self) -> Position {
        Position::default()
    }
}

/// A forwarder on it, with a receiver that counts what it was sent.
struct Life {
    memory: Memory,
    received: Arc<Mutex<BTreeMap<String, u32>>>,
    receiver: Arc<UdpSocket>,
    folder: tempfile::TempDir,
}

impl Life {
    async fn new() -> Self {
        let receiver = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let received: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let (socket, counts) = (Arc::clone(&receiver), Arc::clone(&received));
        tokio::spawn(async move {
            let mut bytes = vec![0; 65_536];
            while let Ok(n_bytes) = socket.recv(&mut bytes).await {
                let line = String::from_utf8_lossy(&bytes[..n_bytes]).into_owned();
                *counts.lock().unwrap().entry(line).or_default() += 1;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        Self { memory: Memory::new(), received, receiver, folder }
    }

    /// Runs for so long, from where the last run ended.
    async fn run(&self, seconds: u64) {
        let (store, loaded) = Store::open(self.folder.path()).unwrap();
        let checkpoint = loaded.checkpoint.unwrap_or_else(|| Checkpoint::new("memory"));
        let start = |stream| match checkpoint.position(stream).cloned() {
            Some(at) => Start::At { at, floor: 0, not_before: None },
            None => Start::Anew(0),
        };
        let identity = Identity {
            agent: AgentIdentity::default(),
            pod_uid: None,
            config_hash: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            source: "memory".to_owned(),
        };
        let progress =
            Progress::new(identity, BOTH.map(|stream| (stream, StreamSource::CloudApps)));
        let settings = Target {
            host: "127.0.0.1".to_owned(),
            port: self.receiver.local_addr().unwrap().port(),
            transport: Transport::Udp,
            grace: Duration::ZERO,
        };
        let (stop, stopping) = watch::channel(false);
        let (sink, _) = Sink::start(settings, Arc::clone(&progress) as _, stopping.clone());
        let gate = Arc::new(Gate::new(600));
        let gates = Gates { alerts: Arc::clone(&gate), activities: gate };
        let forwarder = Forwarder {
            name: None,
            agent: "ns/soc".to_owned(),
            plan: plan(),
            source: self.memory.clone(),
            clearance: Clearance::new(gates, BOTH),
            sink,
            starts: BOTH.map(|stream| (stream, start(stream))).into(),
            saver: Arc::new(Saver::new(checkpoint.clone(), store, progress.metrics.clone())),
            progress,
        };
        let stopper = async {
            sleep(Duration::from_secs(seconds)).await;
            stop.send_replace(true);
        };
        tokio::join!(run(&forwarder, stopping), stopper);
        // What the kernel has taken arrives.
        sleep(Duration::from_millis(10)).await;
    }

    /// Each event was received once, up to those of the last interval.
    #[track_caller]
    fn all_arrived_once(&self) {
        let received = self.received.lock().unwrap();
        assert!(received.values().all(|count| *count == 1), "nothing is repeated");
        let n_events = usize::try_from(self.memory.n_events()).unwrap();
        let n_missing = (2 * n_events).checked_sub(received.len()).unwrap();
        assert!(n_missing <= 4, "{n_missing} of {n_events} events missing");
    }
}

fn plan() -> Plan {
    let layout = Layout {
        header: Header::Legacy,
        time_format: TimeFormat::Rfc5424,
        pri: None,
        host: None,
        framing: Framing::Datagram,
        max_message_bytes: 8_192,
    };
    Plan { format: Format { dialect: Dialect::Legacy, version: "0".to_owned() }, layout }
}

#[tokio::test(start_paused = true)]
async fn every_event_of_hours_is_delivered_once_across_restarts_and_outages() {
    let life = Life::new().await;
    for failure in [Failure::Transient, Failure::Again, Failure::Throttled { retry_after: None }] {
        life.memory.lock().failures.extend([failure; 3]);
        life.run(3_600).await;
        life.all_arrived_once();
    }
    let n_asked = life.memory.lock().asked.len();
    assert!((5_000..6_000).contains(&n_asked), "{n_asked} requests in three hours");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_given_the_time_that_it_asks_for() {
    let life = Life::new().await;
    life.memory
        .lock()
        .failures
        .extend([Failure::Throttled { retry_after: Some(Duration::from_secs(100)) }]);
    life.run(90).await;
    assert_eq!(life.memory.lock().asked.len(), 1, "one stream asks before the secret is proven");
    life.run(600).await;
    life.all_arrived_once();
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_tried_once_a_minute_by_one_stream_and_a_changed_one_at_once() {
    let life = Life::new().await;
    let memory = life.memory.clone();
    let script = async {
        sleep(Duration::from_secs(100)).await;
        memory.lock().dead.insert("first".to_owned());
        sleep(Duration::from_secs(6 * 3_600)).await;
        memory.lock().stored = Some("second".to_owned());
    };
    tokio::join!(life.run(6 * 3_600 + 300), script);
    // Both streams may have had a request under way when it died.
    let is_first = |secret: &Option<String>| secret.as_deref() == Some("first");
    let tries = memory.asked_after(106);
    let tries: Vec<_> = tries.iter().filter(|(.., secret)| is_first(secret)).collect();
    assert!(tries.len() > 60, "{} tries in six hours", tries.len());
    for pair in tries.windows(2) {
        let apart = pair[1].1 - pair[0].1;
        assert!((60_000..=460_000).contains(&apart), "{apart} ms apart");
    }
    let changed = memory.asked_after(100 + 6 * 3_600);
    let (_, first, secret) = &changed[0];
    assert_eq!(secret.as_deref(), Some("second"));
    assert!(*first < (100 + 6 * 3_600 + 2) * 1_000, "tried at once");
    life.all_arrived_once();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_gone_asks_nothing_and_is_used_when_it_is_back() {
    let life = Life::new().await;
    let memory = life.memory.clone();
    let script = async {
        sleep(Duration::from_secs(100)).await;
        memory.lock().stored = None;
        sleep(Duration::from_secs(1_000)).await;
        memory.lock().stored = Some("first".to_owned());
    };
    tokio::join!(life.run(1_200), script);
    let without = memory.asked_after(104).into_iter().filter(|(_, at, _)| *at < 1_100_000);
    assert!(without.clone().all(|(.., secret)| secret.is_none()), "there is nothing to send");
    life.all_arrived_once();
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_stream_stands_alone_and_is_asked_again_each_few_minutes() {
    let life = Life::new().await;
    life.memory.lock().forbidden.insert(Stream::Alerts);
    life.run(3_600).await;
    let asked = life.memory.asked_after(-1);
    let n_alerts = asked.iter().filter(|(stream, ..)| *stream == Stream::Alerts).count();
    assert!((10..=20).contains(&n_alerts), "{n_alerts} requests of a forbidden stream");
    assert!(asked.len() - n_alerts > 880, "the other one is polled");
    life.memory.lock().forbidden.clear();
    life.run(600).await;
    life.all_arrived_once();
}
