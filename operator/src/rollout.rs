//! Who runs the operator's release, and who is brought to it next. Pure: from what every agent shows to a plan.
//!
//! A release is the forwarder's image together with the pod template that this operator makes of it. One agent goes
//! first, the canary; the others follow, [`AT_ONCE`] at a time, once it has come up. A forwarder that was up before and
//! does not come up with the release halts the roll-out. Everything is derived from the label [`RELEASE_LABEL`](crate::names::RELEASE_LABEL) of
//! the Deployments and from their pods, so an operator that starts comes to the same plan as the one before it.
//!
//! Agents that run the same image are one fleet: those without a pinned image, and those that pin the same one.

mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::key::Key;

pub(crate) use progress::{Evidence, progress};

/// Forwarders that may be on their way up at once, after one has come up.
pub(crate) const AT_ONCE: usize = 5;

/// The value of a Deployment's [`RELEASE_LABEL`](crate::names::RELEASE_LABEL): its release, and whether that is on trial there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) release: String,
    pub(crate) trial: Trial,
}

/// What an agent's forwarder has to show after it was brought to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Nothing more: it has come up.
    Passed,
    /// That it is Ready by its own report, because it was before.
    OfReady,
    /// That it runs and reports. It did before, with trouble of its own, such as a token that has ended.
    OfRunning,
    /// Nothing that counts: it did not run before.
    OfDown,
    /// Nothing that counts: it was made by this release, or its user chose the image.
    Fresh,
}

impl Trial {
    const ALL: [Self; 5] =
        [Self::Passed, Self::OfReady, Self::OfRunning, Self::OfDown, Self::Fresh];

    /// Whether it ends once the forwarder has come up. What was made by the release needs no word of that.
    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::OfReady | Self::OfRunning | Self::OfDown)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "",
            Self::OfReady => ".was-ready",
            Self::OfRunning => ".was-running",
            Self::OfDown => ".was-down",
            Self::Fresh => ".new",
        }
    }
}

impl Mark {
    pub(crate) fn new(release: &str, trial: Trial) -> Self {
        Self { release: release.to_owned(), trial }
    }

    /// Reads a label's value. What nobody of ours has written is a release that is not known.
    pub(crate) fn read(value: &str) -> Self {
        let trial = Trial::ALL.into_iter().rev().find(|trial| value.ends_with(trial.word()));
        let trial = trial.unwrap_or(Trial::Passed);
        let release = value.strip_suffix(trial.word()).unwrap_or(value);
        Self::new(release, trial)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.release, self.trial.word())
    }
}

/// How an agent's forwarder fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Up,
    Coming,
    /// It does not come up: why.
    Failing(String),
}

/// What an agent that is not on the release has to lose. In the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Before {
    /// It was brought to an earlier release that it has not come up with: nothing to lose, and it worked before that.
    Failed {
        was_ready: bool,
    },
    Ready,
    Running,
    /// It does not run, for reasons of its own.
    Down,
}

impl Before {
    /// What it then has to show.
    pub(crate) const fn trial(self) -> Trial {
        match self {
            Self::Failed { was_ready: true } | Self::Ready => Trial::OfReady,
            Self::Failed { was_ready: false } | Self::Running => Trial::OfRunning,
            Self::Down => Trial::OfDown,
        }
    }
}

/// Where an agent stands with the release of its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stand {
    /// On it, with a trial and how that goes.
    On(Trial, Progress),
    /// Not on it yet.
    Waiting(Before),
    /// Not on it yet: the API server refuses its Deployment.
    Refused(Before, String),
    /// It is in a host that was not looked at yet: nobody goes before it was.
    Unseen,
}

/// An agent that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) key: Key,
    /// The image of its fleet.
    pub(crate) image: String,
    pub(crate) stand: Stand,
    /// It may go since a moment ago, and does not show it yet.
    pub(crate) is_granted: bool,
    /// It might have gone before and did not: others first.
    pub(crate) is_put_off: bool,
    /// It is in another workload's pod, which an image that cannot be pulled would keep from starting: others first.
    pub(crate) is_hosted: bool,
}

/// What an agent that is not on the release does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is brought to the release.
    Go(Before),
    /// Others are first.
    Wait,
    /// Nobody goes on: why.
    Halted(String),
}

/// Everybody's turn; agents that are on their release have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) turns: BTreeMap<Key, Turn>,
    /// The images whose roll-out is halted, and why.
    pub(crate) halted: BTreeMap<String, String>,
}

/// Makes the plan for all fleets.
pub(crate) fn plan(members: &[Member]) -> Plan {
    let mut plan = Plan::default();
    let images: BTreeSet<_> = members.iter().map(|member| member.image.as_str()).collect();
    for image in images {
        let fleet: Vec<_> = members.iter().filter(|member| member.image == image).collect();
        plan_fleet(image, &fleet, &mut plan);
    }
    plan
}

fn plan_fleet(image: &str, fleet: &[&Member], plan: &mut Plan) {
    let mut waiting: Vec<(&Member, Before)> = fleet
        .iter()
        .filter_map(|member| match &member.stand {
            Stand::Waiting(before) => Some((*member, *before)),
            Stand::On(..) | Stand::Refused(..) | Stand::Unseen => None,
        })
        .collect();
    let refused = fleet.iter().filter_map(|member| match &member.stand {
        Stand::Refused(before, why) => Some((*member, *before, why)),
        Stand::On(..) | Stand::Waiting(_) | Stand::Unseen => None,
    });
    let why = halt(image, fleet);
    // A refusal changes nothing, so it is tried again until it is over.
    for (member, before, _) in refused {
        plan.turns.insert(member.key.clone(), Turn::Go(before));
    }
    if let Some(why) = why.filter(|_| !waiting.is_empty()) {
        for (member, _) in &waiting {
            plan.turns.insert(member.key.clone(), Turn::Halted(why.clone()));
        }
        plan.halted.insert(image.to_owned(), why);
        return;
    }
    let has_come_up = fleet.iter().any(|member| {
        matches!(member.stand, Stand::On(Trial::Passed, _) | Stand::On(_, Progress::Up))
    });
    let on_the_way = fleet.iter().filter(|member| is_on_the_way(&member.stand)).count();
    let limit = if has_come_up { AT_ONCE } else { 1 };
    let is_known = !fleet.iter().any(|member| member.stand == Stand::Unseen);
    let mut free = if is_known { limit.saturating_sub(on_the_way) } else { 0 };
    waiting.sort_by_key(|(member, before)| {
        (!member.is_granted, member.is_put_off, member.is_hosted, *before, member.key.clone())
    });
    for (member, before) in waiting {
        let turn = if free > 0 { Turn::Go(before) } else { Turn::Wait };
        free = free.saturating_sub(1);
        plan.turns.insert(member.key.clone(), turn);
    }
}

/// Why nobody of a fleet goes on: the first forwarder that was up before and does not come up.
fn halt(image: &str, fleet: &[&Member]) -> Option<String> {
    let (member, why) = fleet.iter().find_map(|member| match &member.stand {
        Stand::On(Trial::OfReady | Trial::OfRunning, Progress::Failing(why))
        | Stand::Refused(_, why) => Some((member, why)),
        Stand::On(..) | Stand::Waiting(_) | Stand::Unseen => None,
    })?;
    let key = &member.key;
    Some(format!("{key} does not come up with the image {image}: {why}"))
}

/// Whether a place is taken by it. What was made by the release takes none.
pub(crate) fn is_on_the_way(stand: &Stand) -> bool {
    matches!(stand, Stand::On(trial, Progress::Coming) if trial.is_open())
        || *stand == Stand::Unseen
}

/// What an agent's Deployment is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stance {
    pub(crate) image: String,
    /// None: on a Deployment of an operator that wrote no marks.
    pub(crate) mark: Option<Mark>,
    /// It keeps the release that it runs.
    pub(crate) wait: Option<Wait>,
}

/// Why an agent keeps the release that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    Queued,
    Halted(String),
}

/// What is known of one agent where its stance is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// The image and release of its fleet.
    pub(crate) image: &'a str,
    pub(crate) release: &'a str,
    pub(crate) has_deployment: bool,
    pub(crate) mark: Option<&'a Mark>,
    /// Whether its forwarder has come up with the release that it is on.
    pub(crate) is_up: bool,
    pub(crate) is_suspended: bool,
    /// The image of its present Deployment, and whether its user now pins another one.
    pub(crate) runs: Option<&'a str>,
    pub(crate) pins_another: bool,
    pub(crate) turn: Option<&'a Turn>,
}

/// What an agent's Deployment is made with now.
pub(crate) fn stance(own: &Own<'_>) -> Stance {
    let go = |trial| Stance {
        image: own.image.to_owned(),
        mark: Some(Mark::new(own.release, trial)),
        wait: None,
    };
    if let Some(mark) = own.mark.filter(|mark| mark.release == own.release)
        && own.has_deployment
    {
        let has_passed = own.is_up && mark.trial.is_open();
        return go(if has_passed { Trial::Passed } else { mark.trial });
    }
    // The user's own choice, and where there is nothing to lose.
    let Some(runs) = own.runs.filter(|_| own.has_deployment) else { return go(Trial::Fresh) };
    if own.is_suspended || own.pins_another {
        return go(Trial::Fresh);
    }
    let wait = match own.turn {
        Some(Turn::Go(before)) => return go(before.trial()),
        Some(Turn::Halted(why)) => Wait::Halted(why.clone()),
        Some(Turn::Wait) | None => Wait::Queued,
    };
    Stance { image: runs.to_owned(), mark: own.mark.cloned(), wait: Some(wait) }
}

#[cfg(test)]
mod tests;
