//! When a status is published, and when it is held back.

use super::*;
use crate::reconcile::status::decide::is_hasty;

#[test]
fn a_fresh_operator_says_nothing_before_it_has_read_the_report() {
    let fresh = |previous: SiemAgentStatus| {
        let mut world = world().after(previous);
        world.sighting = Sighting::default();
        world
    };
    assert!(fresh(well()).is_premature());
    let mut failing = fresh(well());
    failing.sighting.failing = Some(Failing { since: ago(10), reason: "m".to_owned() });
    assert!(failing.is_premature());
    failing.sighting.failing = Some(Failing { since: ago(31), reason: "m".to_owned() });
    assert!(!failing.is_premature());
    let mut edited = fresh(well());
    edited.agent.metadata.generation = Some(4);
    assert!(!edited.is_premature());
    let mut dead = fresh(well());
    dead.workload = Workload::Progressing("the pod is being made");
    assert!(!dead.is_premature());
    assert!(!fresh(SiemAgentStatus::default()).is_premature());
    assert!(!world().after(well()).is_premature());
}

#[test]
fn a_status_is_held_while_the_deployment_settles_and_published_where_it_is_news() {
    let seconds = Duration::from_secs;
    let mut new = world();
    assert!(matches!(new.decide().verdict, Verdict::Publish(_)));
    new.unsettled = Some(seconds(1));
    assert!(
        matches!(new.decide(), Decision { verdict: Verdict::Hold(_), again } if again == seconds(3))
    );
    new.unsettled = Some(seconds(3));
    assert!(matches!(new.decide().verdict, Verdict::Publish(_)));
    // The user has just changed it, and hears of that at once.
    let mut changed = world().after(well());
    assert_eq!(changed.decide(), Decision { verdict: Verdict::Unchanged, again: RESYNC });
    changed.agent.metadata.generation = Some(4);
    changed.unsettled = Some(seconds(1));
    assert!(matches!(changed.decide().verdict, Verdict::Publish(_)));
    changed.agent.metadata.generation = Some(3);
    assert!(matches!(changed.decide().verdict, Verdict::Hold(_)));
}

#[test]
fn a_quick_start_is_told_once_and_a_slow_one_step_by_step() {
    let mut world = world();
    world.workload = Workload::Progressing("the Deployment is being made");
    world.sighting = Sighting::default();
    let first = world.status_at(NOW);
    world.workload = Workload::Progressing("the pod is starting");
    let after = |seconds| NOW + SignedDuration::from_secs(seconds);
    let mut started = self::world().after(first.clone());
    started.workload = world.workload.clone();
    started.sighting = Sighting::default();
    assert!(is_news(&first, &started.status_at(after(3))));
    assert!(is_hasty(&first, &started.status_at(after(3)), after(3)));
    assert!(!is_hasty(&first, &started.status_at(after(11)), after(11)));
    // The end is published at once, and so is a trouble.
    let well = self::world().after(first.clone()).status_at(after(3));
    assert!(!is_hasty(&first, &well, after(3)));
    started.workload = Workload::Failing { reason: "R".to_owned(), message: "m".to_owned() };
    assert!(!is_hasty(&first, &started.status_at(after(3)), after(3)));
    assert!(!is_hasty(&well, &first, after(3)));
}
