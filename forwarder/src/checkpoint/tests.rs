//! What a cursor promises, as examples and as laws.

use super::*;
use proptest::prelude::*;

fn key(id: u64) -> RecordKey {
    RecordKey::from_bits(id)
}

#[test]
fn a_page_raises_the_watermark_only_once_all_of_it_is_accounted_for() {
    let mut checkpoint = Checkpoint::new("source");
    checkpoint.place(Stream::Activities, Cursor::starting_at(100));
    let cursor = checkpoint.cursor(Stream::Activities).unwrap().clone();
    let mut scan = Scan::new(Stream::Activities, &cursor);
    assert_eq!(scan.admit(&cursor, key(1), Some(110)), Admission::New);
    assert_eq!(scan.admit(&cursor, key(2), Some(120)), Admission::New);
    assert_eq!(scan.admit(&cursor, key(1), Some(120)), Admission::Repeated);
    assert!(scan.page(1_000).is_none() && scan.end(1_000).is_none());
    scan.settle(2);
    checkpoint.pass(scan.page(1_000).unwrap(), 0);
    assert_eq!(checkpoint.cursor(Stream::Activities).unwrap().watermark(), 120);
    checkpoint.pass(scan.end(1_000).unwrap(), 0);
    assert_eq!(checkpoint.cursor(Stream::Activities).unwrap().watermark(), 1_000);
}

#[test]
fn a_page_out_of_order_proves_nothing_before_the_end() {
    let cursor = Cursor::starting_at(100);
    let mut scan = Scan::new(Stream::Activities, &cursor);
    scan.admit(&cursor, key(1), Some(200));
    scan.admit(&cursor, key(2), Some(150));
    scan.settle(2);
    assert!(scan.page(1_000).is_none());
    assert!(scan.end(1_000).is_some());
}

#[test]
fn a_record_behind_the_watermark_is_late_and_one_seen_before_is_not_sent_again() {
    let cursor = Cursor::restore(0, 500, None, [(key(1), 450)]);
    let mut scan = Scan::new(Stream::Activities, &cursor);
    assert_eq!(scan.admit(&cursor, key(1), Some(450)), Admission::Repeated);
    assert_eq!(scan.admit(&cursor, key(2), Some(450)), Admission::Late);
    assert_eq!(scan.admit(&cursor, key(3), Some(500)), Admission::New);
}

#[test]
fn nothing_before_the_start_is_asked_for() {
    let cursor = Cursor::starting_at(1_000_000);
    assert_eq!(cursor.behind(Duration::from_secs(300)), 1_000_000);
    let later = Cursor::restore(1_000_000, 9_000_000, None, []);
    assert_eq!(later.behind(Duration::from_secs(300)), 8_700_000);
}

proptest! {
    #[test]
    fn the_watermark_never_goes_back(throughs in proptest::collection::vec(0_i64..1_000, 1..50)) {
        let mut checkpoint = Checkpoint::new("source");
        checkpoint.place(Stream::Alerts, Cursor::starting_at(0));
        let mut highest = 0;
        for through in throughs {
            checkpoint.pass(Passed { stream: Stream::Alerts, through }, 0);
            highest = highest.max(through);
            prop_assert_eq!(checkpoint.cursor(Stream::Alerts).unwrap().watermark(), highest);
        }
    }
}
