//! Asks the forwarders for their reports, as `order` has it, and makes due what a report concerns.
//!
//! There are no rounds: an answer makes room for the next question at once, and nothing here waits for the API server.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use siem_agent_edge::clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::error;

use crate::checkpoint_due;
use crate::context::Context;
use crate::error_chain::chain;
use crate::forwarders::order::{Target, Turns};
use crate::forwarders::report::Asker;
use crate::workqueue::Work;

/// How often it is seen whom there is to ask.
const TICK: Duration = Duration::from_millis(500);

/// Asks until it is dropped; what is under way then ends with it.
pub(crate) async fn run(context: Arc<Context>, work: Arc<Work>, asker: Arc<Asker>) {
    let targets = || {
        let targets = context.targets();
        context.reports.expect(&targets);
        targets
    };
    let ask = |target: Target| {
        let (context, work, asker) = (Arc::clone(&context), Arc::clone(&work), Arc::clone(&asker));
        async move {
            let asked = AssertUnwindSafe(ask_one(&context, &asker, &target)).catch_unwind().await;
            if asked.is_err() {
                let (namespace, name) = (&target.key.namespace, &target.key.name);
                error!(namespace, name, "reading a report panicked; other agents are not affected");
                context.metrics.panicked();
            }
            work.add_unless_failing(target.key, Instant::now());
            asked.unwrap_or(false)
        }
    };
    ask_in_turn(targets, ask).await;
}

/// Whether it has answered.
async fn ask_one(context: &Context, asker: &Asker, target: &Target) -> bool {
    let answer = asker.ask(target).await;
    if let Ok(report) = &answer
        && let Some(agent) = context.agent(&target.key)
        && let Ok(agent) = &agent.0
    {
        checkpoint_due::look(context, agent, report);
    }
    let has_answered = answer.is_ok();
    let answer = answer.map_err(|error| format!("{}; {}", chain(&error), error.advice()));
    context.reports.note(target, answer, clock::now());
    has_answered
}

async fn ask_in_turn<F>(targets: impl Fn() -> Vec<Target>, ask: impl Fn(Target) -> F)
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut turns = Turns::default();
    let mut asked = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(turn) = turns.next(Instant::now()) {
            let answer = ask(turn.target.clone());
            asked.spawn(async move { (turn, answer.await) });
        }
        tokio::select! {
            _ = tick.tick() => turns.offer(targets(), Instant::now()),
            Some(Ok((turn, has_answered))) = asked.join_next(), if !asked.is_empty() => {
                turns.done(&turn, has_answered, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::forwarders::order::tests::target;
    use crate::lock::lock;

    /// When each of these agents was asked within this time, in seconds, and how many at once at most. The silent ones hold
    /// who asks them for the whole time-out, from the time on at which they fall silent.
    async fn asked(
        n_others: usize,
        n_silent: usize,
        silent_from: f64,
        seconds: u64,
    ) -> (BTreeMap<String, Vec<f64>>, usize) {
        let start = Instant::now();
        let since = move || Instant::now().duration_since(start).as_secs_f64();
        let is_dead = move |name: &str| name.starts_with("silent") && since() >= silent_from;
        let names = (0..n_others.max(n_silent)).flat_map(|n| {
            let silent = (n < n_silent).then(|| format!("silent{n}"));
            silent.into_iter().chain((n < n_others).then(|| format!("other{n}")))
        });
        let all: Vec<_> = names.map(|name| target(&name, true)).collect();
        let targets = || {
            let mut targets = all.clone();
            // Half a minute later the status says so.
            let is_told = since() > silent_from + 30.0;
            for target in targets.iter_mut().filter(|target| target.key.name.starts_with("silent"))
            {
                target.is_ready = !is_told;
            }
            targets
        };
        let times: Arc<Mutex<BTreeMap<String, Vec<f64>>>> = Arc::default();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |target: Target| {
            let (times, now, most) = (Arc::clone(&times), Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let name = target.key.name;
                let is_dead = is_dead(&name);
                lock(&times).entry(name).or_default().push(since());
                let takes = if is_dead { 2_000 } else { 3 };
                tokio::time::sleep(Duration::from_millis(takes)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                !is_dead
            }
        };
        let all_of_it = ask_in_turn(targets, ask);
        let ended = tokio::time::timeout(Duration::from_secs(seconds), all_of_it).await;
        assert!(ended.is_err(), "it goes on for ever");
        let times = lock(&times).clone();
        (times, most.load(Ordering::SeqCst))
    }

    fn of<'a>(
        times: &'a BTreeMap<String, Vec<f64>>,
        begin: &'a str,
    ) -> impl Iterator<Item = &'a Vec<f64>> {
        times.iter().filter(move |(name, _)| name.starts_with(begin)).map(|(_, times)| times)
    }

    fn n_asked(times: &BTreeMap<String, Vec<f64>>, begin: &str) -> usize {
        of(times, begin).map(Vec::len).sum()
    }

    fn longest_gap(times: &BTreeMap<String, Vec<f64>>, begin: &str) -> f64 {
        let gaps = of(times, begin)
            .flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>());
        gaps.fold(0.0, f64::max)
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_silent_forwarders_cost_the_other_five_hundred_nothing() {
        let (alone, _) = asked(500, 0, 0.0, 300).await;
        for silent_from in [0.0, 120.0] {
            let (beside, most) = asked(500, 500, silent_from, 300).await;
            let (expected, n) = (n_asked(&alone, "other"), n_asked(&beside, "other"));
            // Less than one question of each: the first ones, when nobody knows who is silent, wait for some of them.
            assert!(n + 500 > expected, "{n} of {expected} questions, silent from {silent_from} s");
            let gap = longest_gap(&beside, "other");
            assert!(gap < 17.0, "{gap} s without a question, silent from {silent_from} s");
            assert!(most <= 320, "{most} at once");
            let n_silent = of(&beside, "silent").map(Vec::len).max().unwrap_or(0);
            assert!(n_silent < 20, "a silent one was asked {n_silent} times");
            let pauses = of(&beside, "silent").map(|times| times.last().copied().unwrap_or(0.0));
            let oldest = pauses.fold(f64::INFINITY, f64::min);
            assert!(oldest > 300.0 - 90.0, "a silent one was last asked after {oldest} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agents_by_the_thousand_are_asked_in_time() {
        let (times, most) = asked(5_000, 0, 0.0, 50).await;
        let gap = longest_gap(&times, "other");
        assert!(gap < 16.5 && most <= 256, "{gap} s, {most} at once");
        assert_eq!(of(&times, "other").count(), 5_000);
    }
}
