//! A made-up fleet that does what the plan says, whatever befalls it.

use super::*;

const IMAGE: &str = "forwarder:2";

/// An agent of the made-up fleet.
#[derive(Debug, Clone)]
struct Agent {
    before: Before,
    /// What comes of it once it is brought to the release.
    fate: Progress,
    stand: Stand,
}

fn fleet(agents: &[(Before, Progress)]) -> Vec<Agent> {
    let agent = |(before, fate): &(Before, Progress)| Agent {
        before: *before,
        fate: fate.clone(),
        stand: Stand::Waiting(*before),
    };
    agents.iter().map(agent).collect()
}

fn members(agents: &[Agent]) -> Vec<Member> {
    let member = |(n, agent): (usize, &Agent)| Member {
        key: Key::new("ns", format!("a{n:03}")),
        image: IMAGE.to_owned(),
        stand: agent.stand.clone(),
        is_granted: false,
        is_put_off: false,
        is_hosted: false,
    };
    agents.iter().enumerate().map(member).collect()
}

fn failing() -> Progress {
    Progress::Failing("ImagePullBackOff".to_owned())
}

/// Brings those to the release whose turn it is. How many went.
fn step(agents: &mut [Agent]) -> usize {
    let plan = plan(&members(agents));
    let mut n = 0;
    for (at, agent) in agents.iter_mut().enumerate() {
        if let Some(Turn::Go(before)) = plan.turns.get(&Key::new("ns", format!("a{at:03}"))) {
            agent.stand = Stand::On(before.trial(), Progress::Coming);
            n += 1;
        }
    }
    n
}

/// Everything that is on its way arrives.
fn arrive(agents: &mut [Agent]) {
    for agent in agents {
        if let Stand::On(trial, Progress::Coming) = agent.stand {
            let is_up = agent.fate == Progress::Up;
            agent.stand = Stand::On(if is_up { Trial::Passed } else { trial }, agent.fate.clone());
        }
    }
}

fn n_down(agents: &[Agent]) -> usize {
    let is_down = |agent: &&Agent| {
        agent.before != Before::Down
            && matches!(&agent.stand, Stand::On(_, progress) if *progress != Progress::Up)
    };
    agents.iter().filter(is_down).count()
}

#[test]
fn one_goes_first_and_the_others_follow_five_at_a_time() {
    let mut agents = fleet(&vec![(Before::Ready, Progress::Up); 20]);
    let mut waves = Vec::new();
    loop {
        let n = step(&mut agents);
        if n == 0 {
            break;
        }
        assert_eq!(step(&mut agents), 0, "nobody more until these have come up");
        arrive(&mut agents);
        waves.push(n);
    }
    assert_eq!(waves, [1, 5, 5, 5, 4]);
}

#[test]
fn a_forwarder_that_does_not_come_up_halts_all_until_it_is_mended() {
    let mut agents = fleet(&vec![(Before::Ready, failing()); 20]);
    for _ in 0..50 {
        step(&mut agents);
        arrive(&mut agents);
    }
    assert_eq!(n_down(&agents), 1);
    let halted = plan(&members(&agents));
    assert_eq!(halted.turns.len(), 19);
    assert_eq!(
        halted.halted[IMAGE],
        "ns/a000 does not come up with the image forwarder:2: ImagePullBackOff"
    );
    assert!(halted.turns.values().all(|turn| matches!(turn, Turn::Halted(_))));
    // The image is there at last.
    for agent in &mut agents {
        agent.fate = Progress::Up;
    }
    agents[0].stand = Stand::On(Trial::Passed, Progress::Up);
    for _ in 0..5 {
        step(&mut agents);
        arrive(&mut agents);
    }
    assert_eq!((n_down(&agents), plan(&members(&agents)).turns.len()), (0, 0));
}

#[test]
fn another_image_is_tried_on_the_one_that_is_down() {
    let mut agents = fleet(&vec![(Before::Ready, failing()); 20]);
    for _ in 0..3 {
        for agent in &mut agents {
            let was_tried = matches!(agent.stand, Stand::On(..));
            let before = if was_tried { Before::Failed { was_ready: true } } else { agent.before };
            agent.stand = Stand::Waiting(before);
        }
        for _ in 0..5 {
            step(&mut agents);
            arrive(&mut agents);
        }
        assert_eq!(n_down(&agents), 1, "three broken images cost one agent");
    }
}

#[test]
fn who_was_down_before_neither_goes_first_nor_halts() {
    let mut agents = fleet(&[
        (Before::Down, failing()),
        (Before::Down, failing()),
        (Before::Running, Progress::Up),
        (Before::Ready, Progress::Up),
        (Before::Ready, Progress::Up),
    ]);
    assert_eq!(step(&mut agents), 1);
    assert!(matches!(agents[3].stand, Stand::On(Trial::OfReady, _)), "a Ready one is the canary");
    arrive(&mut agents);
    for _ in 0..3 {
        step(&mut agents);
        arrive(&mut agents);
    }
    assert_eq!(plan(&members(&agents)), Plan::default());
    // Where none runs, one after the other is tried.
    let mut agents = fleet(&vec![(Before::Down, failing()); 3]);
    for n in 1..=3 {
        assert_eq!(step(&mut agents), 1);
        arrive(&mut agents);
        let is_on = |agent: &&Agent| matches!(agent.stand, Stand::On(..));
        assert_eq!(agents.iter().filter(is_on).count(), n);
    }
}

#[test]
fn a_refused_deployment_halts_and_is_tried_again() {
    let mut agents = fleet(&vec![(Before::Ready, Progress::Up); 3]);
    agents[1].stand = Stand::Refused(Before::Ready, "quota".to_owned());
    let plan = plan(&members(&agents));
    let turn = |n: usize| &plan.turns[&Key::new("ns", format!("a{n:03}"))];
    assert_eq!(*turn(1), Turn::Go(Before::Ready));
    assert!(
        matches!(turn(0), Turn::Halted(why) if why.contains("ns/a001") && why.contains("quota"))
    );
    // An agent that nobody waits for halts nobody.
    let alone = &members(&agents)[1..2];
    assert_eq!(super::plan(alone).halted.len(), 0);
}

#[test]
fn a_pinned_image_is_a_fleet_of_its_own() {
    let mut agents = fleet(&vec![(Before::Ready, Progress::Up); 3]);
    agents[0].stand = Stand::On(Trial::OfReady, failing());
    let mut members = members(&agents);
    members[2].image = "pinned:1".to_owned();
    let plan = plan(&members);
    assert!(matches!(plan.turns[&members[1].key], Turn::Halted(_)));
    assert_eq!(plan.turns[&members[2].key], Turn::Go(Before::Ready));
}

#[test]
fn who_may_go_keeps_its_turn_and_who_does_not_use_it_loses_it() {
    let agents = fleet(&vec![(Before::Ready, Progress::Up); 3]);
    let mut members = members(&agents);
    members[2].is_granted = true;
    let goes = |members: &[Member]| {
        let plan = plan(members);
        let goes = members.iter().position(|member| matches!(plan.turns[&member.key], Turn::Go(_)));
        goes.unwrap()
    };
    assert_eq!(goes(&members), 2);
    members[2].is_granted = false;
    members[0].is_put_off = true;
    assert_eq!(goes(&members), 1);
}

/// Thousands of fleets in which everything may fail: however long it goes on, of those that were up at most one goes down
/// before any has come up, at most five after that, and what can come up does where nothing else fails.
#[test]
fn no_release_takes_a_fleet_down() {
    let mut random = fastrand::Rng::with_seed(10);
    for _ in 0..1_000 {
        let share = random.f64();
        let agents: Vec<_> = (0..random.usize(1..40))
            .map(|_| {
                let before = [Before::Ready, Before::Ready, Before::Running, Before::Down];
                let fate = if random.f64() < share { failing() } else { Progress::Up };
                (before[random.usize(0..before.len())], fate)
            })
            .collect();
        let mut agents = fleet(&agents);
        for _ in 0..40 {
            if step(&mut agents) == 0 && !agents.iter().any(|agent| is_on_the_way(&agent.stand)) {
                break;
            }
            let has_come_up =
                agents.iter().any(|agent| matches!(agent.stand, Stand::On(Trial::Passed, _)));
            assert!(n_down(&agents) <= if has_come_up { AT_ONCE } else { 1 }, "{agents:?}");
            // Each in its own time.
            for at in 0..agents.len() {
                if random.bool() {
                    arrive(&mut agents[at..=at]);
                }
            }
        }
        let fails = |agent: &Agent| {
            agent.before != Before::Down
                && matches!(agent.stand, Stand::On(_, Progress::Failing(_)))
        };
        let is_over = plan(&members(&agents)).turns.is_empty();
        assert!(is_over || agents.iter().any(fails), "{agents:?}");
    }
}

#[test]
fn a_mark_is_read_as_it_was_written() {
    for trial in Trial::ALL {
        let mark = Mark::new("0123456789abcdef", trial);
        assert_eq!(Mark::read(&mark.to_string()), mark);
    }
    assert_eq!(Mark::read("whatever").trial, Trial::Passed);
}

#[test]
fn an_agent_keeps_what_it_runs_until_it_is_its_turn() {
    let old = Mark::new("1", Trial::Passed);
    let own = Own {
        image: IMAGE,
        release: "2",
        has_deployment: true,
        mark: Some(&old),
        is_up: true,
        is_suspended: false,
        runs: Some("forwarder:1"),
        pins_another: false,
        turn: None,
    };
    let kept = |wait| Stance {
        image: "forwarder:1".to_owned(),
        mark: Some(old.clone()),
        wait: Some(wait),
    };
    let goes =
        |trial| Stance { image: IMAGE.to_owned(), mark: Some(Mark::new("2", trial)), wait: None };
    assert_eq!(stance(&own), kept(Wait::Queued));
    assert_eq!(stance(&Own { turn: Some(&Turn::Wait), ..own }), kept(Wait::Queued));
    let halted = Turn::Halted("why".to_owned());
    let stays = Own { turn: Some(&halted), ..own };
    assert_eq!(stance(&stays), kept(Wait::Halted("why".to_owned())));
    let turn = Turn::Go(Before::Ready);
    assert_eq!(stance(&Own { turn: Some(&turn), ..own }), goes(Trial::OfReady));
    // A user's choice never waits, and neither does what has nothing to lose.
    assert_eq!(stance(&Own { pins_another: true, ..stays }), goes(Trial::Fresh));
    assert_eq!(stance(&Own { is_suspended: true, ..stays }), goes(Trial::Fresh));
    assert_eq!(stance(&Own { has_deployment: false, ..stays }), goes(Trial::Fresh));
    // On the release: a trial lasts until it has come up.
    let on = Mark::new("2", Trial::OfReady);
    let on = Own { mark: Some(&on), is_up: false, ..own };
    assert_eq!(stance(&on), goes(Trial::OfReady));
    assert_eq!(stance(&Own { is_up: true, ..on }), goes(Trial::Passed));
    let fresh = Mark::new("2", Trial::Fresh);
    assert_eq!(stance(&Own { mark: Some(&fresh), ..own }), goes(Trial::Fresh));
    // One of an operator that wrote no marks.
    let unmarked = Own { mark: None, ..own };
    assert_eq!(stance(&unmarked), Stance { mark: None, ..kept(Wait::Queued) });
}

#[test]
fn nobody_goes_before_every_host_was_looked_at_and_hosts_go_last() {
    let waiting = |name: &str, is_hosted: bool| Member {
        key: Key::new("ns", name),
        image: IMAGE.to_owned(),
        stand: Stand::Waiting(Before::Ready),
        is_granted: false,
        is_put_off: false,
        is_hosted,
    };
    let goes = |members: &[Member]| -> Vec<String> {
        let turns = plan(members).turns.into_iter();
        turns.filter(|(_, turn)| matches!(turn, Turn::Go(_))).map(|(key, _)| key.name).collect()
    };
    let fleet = [waiting("a-host", true), waiting("b", false)];
    assert_eq!(goes(&fleet), ["b"], "the canary has a pod of its own");
    let unseen = Member { stand: Stand::Unseen, ..waiting("c", true) };
    assert_eq!(goes(&[fleet[0].clone(), fleet[1].clone(), unseen]), Vec::<String>::new());
}
