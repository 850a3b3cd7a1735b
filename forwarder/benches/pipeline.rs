//! What the pipeline costs beside what no program that reads this API can save: the parsing of its JSON.
//!
//! `cargo bench --bench pipeline` prints, for both streams, records a second through `parse -> map -> frame`, through
//! the bare typed parse of the same bytes (`pipeline/wire.rs`), and the ratio of the two; once record by record, and
//! once as whole pages that arrive in pieces, are split, framed and put into batches.

#![expect(clippy::print_stdout, reason = "what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark of good records")]

#[path = "pipeline/wire.rs"]
mod wire;

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use siem_agent_forwarder::delivery::BatchBuilder;
use siem_agent_forwarder::event::{Event, Stream};
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_forwarder::record::Mark;
use siem_agent_forwarder::source::cloud_apps::parse;
use siem_agent_forwarder::source::http::split::{Piece, Splitter};
use siem_agent_forwarder::syslog::{self, Frame, Framing, Header, Layout, TimeFormat};
use tokio::time::Instant;

const N_RECORDS: usize = 500;
/// As a body arrives: what TLS and HTTP hand over at once.
const CHUNK: usize = 16 * 1_024;
/// The best of so many rounds counts: whatever disturbs a round only makes it longer.
const ROUNDS: usize = 60;
const STREAMS: [Stream; 2] = [Stream::Activities, Stream::Alerts];

fn main() {
    for stream in STREAMS {
        let corpus = Corpus::new(stream);
        let n_bytes = corpus.page.len() / N_RECORDS;
        let (pipeline, bare) = (|| corpus.through_the_pipeline(), || corpus.parsed_barely());
        report(
            &format!("{stream}, {n_bytes} bytes a record: parse -> map -> frame"),
            pipeline,
            bare,
        );
        let (pipeline, bare) = (|| corpus.page_into_batches(), || corpus.page_parsed_barely());
        report(
            &format!("{stream}: a page of {N_RECORDS}, split -> parse -> map -> frame -> batch"),
            pipeline,
            bare,
        );
    }
    divan::main();
}

/// Takes turns, so that both see the same machine.
fn report(what: &str, pipeline: impl Fn() -> usize, bare: impl Fn() -> usize) {
    let (mut best_pipeline, mut best_bare) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best_bare = best_bare.min(time(&bare));
        best_pipeline = best_pipeline.min(time(&pipeline));
    }
    let rate = |time: Duration| N_RECORDS as f64 / time.as_secs_f64();
    let (pipeline, bare) = (rate(best_pipeline), rate(best_bare));
    println!("{what}");
    println!("  pipeline          {pipeline:>10.0} events/s");
    println!("  bare typed parse  {bare:>10.0} events/s");
    println!("  ratio             {:>10.2}", pipeline / bare);
}

fn time(run: &impl Fn() -> usize) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

#[divan::bench(args = STREAMS)]
fn pipeline(bencher: Bencher<'_, '_>, stream: Stream) {
    let corpus = Corpus::new(stream);
    bencher.counter(ItemsCount::new(N_RECORDS)).bench(|| corpus.through_the_pipeline());
}

#[divan::bench(args = STREAMS)]
fn bare_typed_parse(bencher: Bencher<'_, '_>, stream: Stream) {
    let corpus = Corpus::new(stream);
    bencher.counter(ItemsCount::new(N_RECORDS)).bench(|| corpus.parsed_barely());
}

#[divan::bench(args = STREAMS)]
fn parse_only(bencher: Bencher<'_, '_>, stream: Stream) {
    let corpus = Corpus::new(stream);
    bencher
        .counter(ItemsCount::new(N_RECORDS))
        .bench(|| corpus.records.iter().filter(|json| parse::record(stream, json).is_ok()).count());
}

#[divan::bench(args = STREAMS)]
fn split_only(bencher: Bencher<'_, '_>, stream: Stream) {
    let corpus = Corpus::new(stream);
    bencher.counter(ItemsCount::new(N_RECORDS)).bench(|| {
        let mut splitter = Splitter::new();
        for chunk in corpus.page.chunks(CHUNK) {
            splitter.feed(chunk).unwrap();
            while let Some(piece) = splitter.next() {
                black_box(piece);
            }
        }
    });
}

/// Records like the real ones, each a little different, and the page that they make.
struct Corpus {
    stream: Stream,
    records: Vec<Vec<u8>>,
    page: Vec<u8>,
    layout: Layout,
}

impl Corpus {
    fn new(stream: Stream) -> Self {
        let template = match stream {
            Stream::Activities => include_str!("../fixtures/activity/run-command.json"),
            Stream::Alerts => include_str!("../fixtures/alert/mass-download.json"),
        };
        // As the API sends it: without white space.
        let template = compact(template);
        let records: Vec<Vec<u8>> = (0..N_RECORDS)
            .map(|index| {
                let record = template
                    .replace("1793000", &format!("{}", 1_793_000 + index))
                    .replace("ada@", &format!("ada{}@", index * 7_919 % 100_000))
                    .replace("203.0.113.24", &format!("203.0.{}.{}", index % 256, index / 256));
                record.into_bytes()
            })
            .collect();
        let page = [
            b"{\"total\":500,\"data\":[".as_slice(),
            &records.join(&b","[..]),
            b"],\"hasNext\":true}",
        ]
        .concat();
        let layout = Layout {
            header: Header::Legacy,
            time_format: TimeFormat::Rfc5424,
            pri: Some(109),
            host: Some("soc".to_owned()),
            framing: Framing::Newline,
            max_message_bytes: 8_000,
        };
        Self { stream, records, page, layout }
    }

    fn frame(&self, event: &Event) -> Frame {
        let record = map::record(event, Dialect::Legacy, "0.1.0");
        syslog::frame(record, event.timestamp(), &self.layout).unwrap()
    }

    fn through_the_pipeline(&self) -> usize {
        let frame = |json: &Vec<u8>| {
            let event = parse::record(self.stream, json).unwrap();
            black_box(self.frame(&event)).bytes.len()
        };
        self.records.iter().map(frame).sum()
    }

    fn parsed_barely(&self) -> usize {
        match self.stream {
            Stream::Activities => self.records.iter().for_each(|json| {
                black_box(serde_json::from_slice::<wire::Activity<'_>>(json).unwrap());
            }),
            Stream::Alerts => self.records.iter().for_each(|json| {
                black_box(serde_json::from_slice::<wire::Alert<'_>>(json).unwrap());
            }),
        }
        self.records.len()
    }

    fn page_into_batches(&self) -> usize {
        let mut splitter = Splitter::new();
        let mut builder = BatchBuilder::new(self.stream);
        let mut n_records = 0;
        for chunk in self.page.chunks(CHUNK) {
            splitter.feed(chunk).unwrap();
            while let Some(piece) = splitter.next() {
                let Piece::Record(json) = piece else { continue };
                let event = parse::record(self.stream, &json).unwrap();
                let mark = Mark::new(event.id(), event.timestamp());
                builder.push(&self.frame(&event).bytes, mark);
            }
            // As the pipeline does: what a chunk completes travels together.
            n_records += builder.take().map_or(0, |batch| black_box(batch).n_records());
        }
        assert!(splitter.finish().unwrap()["hasNext"] == true && n_records == N_RECORDS);
        n_records
    }

    fn page_parsed_barely(&self) -> usize {
        match self.stream {
            Stream::Activities => {
                serde_json::from_slice::<wire::Page<wire::Activity<'_>>>(&self.page)
                    .unwrap()
                    .data
                    .len()
            }
            Stream::Alerts => serde_json::from_slice::<wire::Page<wire::Alert<'_>>>(&self.page)
                .unwrap()
                .data
                .len(),
        }
    }
}

/// The JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let mut in_text = false;
    let mut escaped = false;
    let keep = |char: &char| {
        if *char == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = *char == '\\' && !escaped;
        in_text || !char.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}
