//! How much is asked for at once, and how often.

use super::*;

#[test]
fn of_many_answers_few_are_too_large() {
    let mut table = Table::starting_at(xdr::Table::CloudAppEvents, 0, 0, 1_000);
    let (mut n_refused, mut n_rows) = (0, 0);
    for _ in 0..100 {
        let query = table.question(Kind::Live, None);
        let Select::Rows(rows) = query.select else { panic!("{query:?}") };
        if rows > 40 {
            n_refused += 1;
            table.failed(Kind::Live, TooMuch::Size, None);
        } else {
            n_rows += rows;
            table.answered(&query, Kind::Live, &Answered::default(), 0);
        }
    }
    assert!(n_refused <= 20 && n_rows >= 2_000, "{n_refused} refused, {n_rows} rows");
}

#[test]
fn after_answers_that_took_too_long_as_much_as_ever_is_asked_for_soon() {
    let mut table = Table::starting_at(xdr::Table::CloudAppEvents, 0, 0, 1_000);
    for _ in 0..10 {
        table.failed(Kind::Live, TooMuch::Time, None);
    }
    let look = table.question(Kind::Look, None);
    assert_eq!(look.select, Select::Ids(LEAST_ROWS * IDS_A_ROW), "of ids as well");
    for _ in 0..10 {
        let query = table.question(Kind::Live, None);
        table.answered(&query, Kind::Live, &Answered::default(), 0);
    }
    assert_eq!(table.question(Kind::Live, None).select, Select::Rows(MOST_ROWS));
}

#[test]
fn a_look_that_misses_much_fetches_it_before_it_lists_more() {
    let mut table = Table::starting_at(xdr::Table::CloudAppEvents, 0, 600_000, 1_000);
    table.live = Key::before(10_000);
    table.next_poll = Millis::MAX;
    let now = table.next_look;
    let mut most = 0;
    for page in 0..200 {
        let kind = table.due(now).unwrap();
        let query = table.question(kind, None);
        let mut is = Answered { n_rows: query.limit() - 1, ..Answered::default() };
        if kind == Kind::Look {
            let ids = (0..query.limit()).map(|id| format!("{page}-{id}"));
            ids.for_each(|id| table.list(&id));
            is = Answered {
                n_rows: query.limit(),
                last: Some(Key::before(page + 1)),
                ..Answered::default()
            };
        }
        table.answered(&query, kind, &is, now);
        most = most.max(table.look.as_ref().map_or(0, |look| look.missing.len()));
    }
    assert!((MOST_IDS..2 * MOST_IDS + 1).contains(&most), "{most} ids");
}

/// A row that shows just behind a poll waits for the next one: whatever a query takes comes on top once, not twice.
#[test]
fn polls_keep_their_interval_however_long_they_wait_and_take() {
    let interval = 30_000;
    let mut table = Table::starting_at(xdr::Table::CloudAppEvents, 0, 0, interval);
    for poll in 0..10 {
        let begun = poll * interval;
        assert_eq!(table.due(begun - 1), Err(begun), "poll {poll} comes too soon");
        assert_eq!(table.due(begun), Ok(Kind::Live), "poll {poll} is late");
        let query = table.question(Kind::Live, None);
        table.answered(
            &query,
            Kind::Live,
            &Answered { begun, ..Answered::default() },
            begun + 9_000,
        );
    }
    // One that takes longer than the interval is followed by another, not by all that it kept from their turn.
    let query = table.question(Kind::Live, None);
    let answered = Answered { begun: 300_000, ..Answered::default() };
    table.answered(&query, Kind::Live, &answered, 500_000);
    assert_eq!(table.due(500_000), Ok(Kind::Live));
    let query = table.question(Kind::Live, None);
    let answered = Answered { begun: 500_000, ..Answered::default() };
    table.answered(&query, Kind::Live, &answered, 501_000);
    assert_eq!(table.due(501_000), Err(530_000));
}
