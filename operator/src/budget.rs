//! How the agents of one tenant share the requests that its APIs allow. Pure.
//!
//! An API allows so many requests a minute for a whole tenant, whoever asks: the portal's for a URL, and Graph's hunting for
//! its tenant. An agent has a claim on each that serves a stream of it. Each API's requests are divided evenly among the agents that
//! work: those whose report has said that the token is valid. A new agent counts for five minutes at most, and all new ones
//! of a namespace count as one, so that nobody takes anything from others without a token for the tenant. A suspended,
//! refused, impossible or silent agent does not count; it gets what it would have if it did, so that it can begin before
//! the others have heard of it. What an agent's own ceiling leaves goes to the others; what does not divide goes to the
//! first by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::{SiemAgentSpec, Stream, StreamSource, TokenState};

use crate::agent::Agent;
use crate::key::Key;
use crate::same;
use crate::tenants::Tenants;

/// What the portal allows a tenant, requests a minute; of the 45 that Graph's hunting allows, it is what agents take.
const BY_DEFAULT: u32 = 30;
/// How long an agent counts without a report that says that its token is valid.
const GRACE: SignedDuration = SignedDuration::from_mins(5);
/// So many namespaces are named.
const NAMED: usize = 3;

/// Whether an agent counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its report says that the token is valid, or has said so within five minutes.
    Working,
    /// Not five minutes old, and nothing is known of its token.
    New,
    /// Nothing is heard of its token.
    Silent,
    /// It asks nothing worth counting: suspended, refused, impossible, or in a namespace that may not.
    Idle,
}

/// What the forwarder's reports have said of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The last one.
    pub(crate) token: TokenState,
    /// When one last said Valid.
    pub(crate) valid: Option<Timestamp>,
}

/// An agent's claim on a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    /// Whose requests they are: the portal's, or Graph's for hunting. Graph's alerts have a budget that no agent uses up.
    api: StreamSource,
    /// Its name by [`same::tenant`], which no two APIs have in common.
    tenant: String,
    /// `requestsPerMinute` of the source.
    ceiling: Option<u32>,
}

/// An agent with a claim on its tenant's requests.
#[derive(Debug, Clone)]
pub(crate) struct Claimant {
    key: Key,
    claim: Claim,
    standing: Standing,
}

/// What an agent may ask of one API.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    /// Requests a minute.
    requests: u32,
    /// With whom the tenant is shared.
    others: Others,
}

/// What an agent may ask of each API; `None` of one that it does not ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    portal: Option<Share>,
    hunting: Option<Share>,
}

/// The other agents that ask the same tenant. Of many it is not said exactly how many they are, because every change is
/// a write of each one's status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Others {
    at_least: usize,
    is_exact: bool,
    namespaces: Vec<String>,
    has_more_namespaces: bool,
}

/// What every agent may ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(BTreeMap<Key, Allowed>);

/// The claims of an agent: of each API that serves a stream of it and has a budget.
fn claims(spec: &SiemAgentSpec) -> impl Iterator<Item = Claim> + '_ {
    let is_asked = |api: &StreamSource| match api {
        StreamSource::CloudApps => spec.served_by(*api).next().is_some(),
        StreamSource::Graph => spec.source_of(Stream::Activities) == Some(*api),
    };
    StreamSource::ALL.into_iter().filter(is_asked).filter_map(|api| {
        let source = &spec.source;
        let ceiling = match api {
            StreamSource::CloudApps => source.cloud_apps.as_ref()?.requests_per_minute,
            StreamSource::Graph => source.graph.as_ref()?.requests_per_minute,
        };
        let ceiling = ceiling.map(|ceiling| u32::try_from(ceiling).unwrap_or(1).max(1));
        Some(Claim { api, tenant: same::tenant(&source.name(api)?), ceiling })
    })
}

/// The tenants on whose budgets an agent has a claim, by [`same::tenant`].
pub(crate) fn tenants(spec: &SiemAgentSpec) -> impl Iterator<Item = String> + '_ {
    claims(spec).map(|claim| claim.tenant)
}

impl Claimant {
    /// The claims of an agent, given what is heard of it.
    pub(crate) fn of(
        agent: &Agent,
        heard: Option<Heard>,
        tenants: &Tenants,
        now: Timestamp,
    ) -> impl Iterator<Item = Self> {
        let may_export = tenants.refused(agent).is_none();
        let standing = if may_export { standing(agent, heard, now) } else { Standing::Idle };
        claims(&agent.spec).map(move |claim| Self { key: agent.key.clone(), claim, standing })
    }

    fn most(&self) -> u32 {
        self.claim.ceiling.unwrap_or(u32::MAX)
    }
}

impl Allowed {
    fn of(&mut self, api: StreamSource) -> &mut Option<Share> {
        match api {
            StreamSource::CloudApps => &mut self.portal,
            StreamSource::Graph => &mut self.hunting,
        }
    }

    /// Whether it is of the APIs that an agent asks.
    pub(crate) fn is_for(&self, spec: &SiemAgentSpec) -> bool {
        let asked = |api| claims(spec).any(|claim| claim.api == api);
        self.portal.is_some() == asked(StreamSource::CloudApps)
            && self.hunting.is_some() == asked(StreamSource::Graph)
    }

    /// Of the portal's requests; where it is not asked, a number that is never used.
    pub(crate) fn requests_per_minute(&self) -> u32 {
        self.portal.as_ref().or(self.hunting.as_ref()).map_or(1, |share| share.requests)
    }

    /// Of Graph's hunting queries, for an agent that asks them.
    pub(crate) fn hunting_per_minute(&self) -> Option<u32> {
        self.hunting.as_ref().map(|share| share.requests)
    }

    /// With whom each API's requests are shared, in words; empty where the tenant is the agent's alone.
    pub(crate) fn shared(&self) -> String {
        let mut words = String::new();
        for (what, share) in [("requests", &self.portal), ("hunting queries", &self.hunting)] {
            if let Some(share) = share.as_ref().filter(|share| !share.others.is_nobody()) {
                words.push_str("; the tenant's ");
                words.push_str(what);
                words.push_str(" are shared with ");
                words.push_str(&share.others.to_string());
            }
        }
        words
    }
}

/// What counts as one when the requests are divided: a working agent, or the new ones of a namespace.
#[derive(Debug)]
struct Unit<'a> {
    members: Vec<&'a Claimant>,
}

impl Unit<'_> {
    fn most(&self) -> u32 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.most()))
    }
}

impl Shares {
    /// Divides the requests of every tenant.
    pub(crate) fn of(claimants: &[Claimant], tenants: &Tenants) -> Self {
        let mut by_tenant: BTreeMap<&str, Vec<&Claimant>> = BTreeMap::new();
        for claimant in claimants {
            by_tenant.entry(&claimant.claim.tenant).or_default().push(claimant);
        }
        let mut shares = BTreeMap::new();
        for (tenant, mut claimants) in by_tenant {
            claimants.sort_by(|one, two| one.key.cmp(&two.key));
            of_tenant(&claimants, tenants.requests_per_minute(tenant), &mut shares);
        }
        Self(shares)
    }

    /// What one agent may ask.
    pub(crate) fn allowed(&self, key: &Key) -> Option<&Allowed> {
        self.0.get(key)
    }

    /// An agent works with these shares.
    pub(crate) fn given(&mut self, key: &Key, allowed: Allowed) {
        self.0.insert(key.clone(), allowed);
    }

    /// The agents whose share is another one than before.
    pub(crate) fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Key> {
        let is_other = |(key, allowed): &(&Key, &Allowed)| before.0.get(*key) != Some(*allowed);
        self.0.iter().filter(is_other).map(|(key, _)| key)
    }
}

/// Divides what one API allows one tenant.
fn of_tenant(claimants: &[&Claimant], given: Option<u32>, shares: &mut BTreeMap<Key, Allowed>) {
    let of = |standing| claimants.iter().copied().filter(move |it| it.standing == standing);
    let working: Vec<_> = of(Standing::Working).collect();
    let mut new: BTreeMap<&str, Vec<&Claimant>> = BTreeMap::new();
    for claimant in of(Standing::New) {
        new.entry(&claimant.key.namespace).or_default().push(claimant);
    }
    let mut units: Vec<_> = working.iter().map(|one| Unit { members: vec![*one] }).collect();
    units.extend(new.into_values().map(|members| Unit { members }));
    units.sort_by(|one, two| {
        let first = |unit: &Unit<'_>| unit.members.first().map(|member| member.key.clone());
        first(one).cmp(&first(two))
    });
    let total = given.unwrap_or_else(|| {
        let counted = || units.iter().flat_map(|unit| unit.members.iter().copied());
        match (working.is_empty(), units.is_empty()) {
            (false, _) => own_budget(working.iter().copied()),
            (true, false) => own_budget(counted()),
            (true, true) => own_budget(claimants.iter().copied()),
        }
    });
    let mut counting: BTreeMap<&str, usize> = BTreeMap::new();
    for member in units.iter().flat_map(|unit| unit.members.iter()) {
        *counting.entry(&member.key.namespace).or_default() += 1;
    }
    let n_counting = counting.values().sum();
    let mut give = |claimant: &Claimant, requests: u32| {
        let others = Others::of(claimant, &counting, n_counting);
        let allowed = shares.entry(claimant.key.clone()).or_default();
        *allowed.of(claimant.claim.api) = Some(Share { requests: requests.max(1), others });
    };
    let parts = divide(total, &units.iter().map(Unit::most).collect::<Vec<_>>());
    for (unit, part) in units.iter().zip(parts) {
        let most: Vec<_> = unit.members.iter().map(|member| member.most()).collect();
        for (member, share) in unit.members.iter().zip(divide(part, &most)) {
            give(member, share);
        }
    }
    let one_more = total / (u32::try_from(units.len()).unwrap_or(u32::MAX).saturating_add(1));
    let mut n_silent: BTreeMap<&str, u32> = BTreeMap::new();
    for claimant in of(Standing::Silent) {
        *n_silent.entry(&claimant.key.namespace).or_default() += 1;
    }
    for claimant in of(Standing::Silent) {
        let n_silent = n_silent.get(claimant.key.namespace.as_str()).copied().unwrap_or(1).max(1);
        give(claimant, (one_more / n_silent).min(claimant.most()));
    }
    for claimant in of(Standing::Idle) {
        give(claimant, one_more.min(claimant.most()));
    }
}

/// What a tenant allows where nobody but its agents says so: the most that one of them gives, while all are of one
/// namespace; no namespace decides for another.
fn own_budget<'a>(claimants: impl Iterator<Item = &'a Claimant> + Clone) -> u32 {
    let namespaces: BTreeSet<_> =
        claimants.clone().map(|claimant| &claimant.key.namespace).collect();
    let most = claimants.map(|claimant| claimant.claim.ceiling.unwrap_or(BY_DEFAULT)).max();
    if namespaces.len() == 1 { most.unwrap_or(BY_DEFAULT) } else { BY_DEFAULT }
}

/// Divides evenly up to each one's ceiling; what a ceiling leaves goes to the others, and what does not divide to the first
/// of them. A ceiling that nobody reaches changes nothing.
fn divide(total: u32, ceilings: &[u32]) -> Vec<u32> {
    let sum = |level: u32| {
        ceilings.iter().fold(0_u64, |sum, ceiling| sum + u64::from((*ceiling).min(level)))
    };
    // The highest level that the total fills for all of them.
    let (mut level, mut beyond) = (0, total.saturating_add(1));
    while beyond - level > 1 {
        let middle = level + (beyond - level) / 2;
        if sum(middle) <= u64::from(total) {
            level = middle;
        } else {
            beyond = middle;
        }
    }
    let mut left = u64::from(total).saturating_sub(sum(level));
    let part = |ceiling: &u32| {
        let extra = u32::from(left > 0 && *ceiling > level);
        left -= u64::from(extra);
        (*ceiling).min(level) + extra
    };
    ceilings.iter().map(part).collect()
}

impl Others {
    /// Of those that count, by namespace, all but this one.
    fn of(claimant: &Claimant, counting: &BTreeMap<&str, usize>, n_counting: usize) -> Self {
        let is_one = matches!(claimant.standing, Standing::Working | Standing::New);
        let n_others = n_counting.saturating_sub(usize::from(is_one));
        let own = claimant.key.namespace.as_str();
        let mut namespaces = counting
            .iter()
            .filter(|(namespace, n)| **n > usize::from(is_one && **namespace == own))
            .map(|(namespace, _)| *namespace);
        let named = namespaces.by_ref().take(NAMED).map(str::to_owned).collect();
        let at_least = [1_000, 100, 10].into_iter().find(|least| n_others >= *least);
        Self {
            at_least: at_least.unwrap_or(n_others),
            is_exact: at_least.is_none(),
            namespaces: named,
            has_more_namespaces: namespaces.next().is_some(),
        }
    }

    /// Whether the tenant is the agent's alone.
    fn is_nobody(&self) -> bool {
        self.at_least == 0
    }
}

/// `2 other agents, in the namespaces a, b`
impl fmt::Display for Others {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.is_exact { "" } else { "at least " };
        let agents = if self.at_least == 1 { "agent" } else { "agents" };
        let in_the = if self.namespaces.len() == 1 { "namespace" } else { "namespaces" };
        let names = self.namespaces.join(", ");
        let more = if self.has_more_namespaces { " and others" } else { "" };
        write!(
            formatter,
            "{about}{n} other {agents}, in the {in_the} {names}{more}",
            n = self.at_least
        )
    }
}

/// What an agent may ask that has its tenant to itself.
pub(crate) fn alone(agent: &SiemAgent, tenants: &Tenants) -> Allowed {
    let mut allowed = Allowed::default();
    for claim in claims(&agent.spec) {
        let requests = match (tenants.requests_per_minute(&claim.tenant), claim.ceiling) {
            (Some(given), Some(ceiling)) => given.min(ceiling),
            (given, ceiling) => given.or(ceiling).unwrap_or(BY_DEFAULT),
        };
        let share = Share { requests: requests.max(1), others: Others::default() };
        *allowed.of(claim.api) = Some(share);
    }
    allowed
}

/// Whether an agent counts.
fn standing(agent: &SiemAgent, heard: Option<Heard>, now: Timestamp) -> Standing {
    let status = agent.status.as_ref();
    let is_asleep = agent.is_suspended() || agent.metadata.deletion_timestamp.is_some();
    if is_asleep || agent.is_stalled() {
        return Standing::Idle;
    }
    let is_recent = |time: Timestamp| now.duration_since(time) < GRACE;
    let told = status.and_then(|status| status.token.as_ref()).map(|token| match token.state {
        TokenState::Forbidden if reads_a_stream(agent) => TokenState::Valid,
        state => state,
    });
    // An operator that has just begun has heard nothing yet: what the last one wrote holds.
    let token = heard.map(|heard| heard.token).or(told).unwrap_or(TokenState::Unknown);
    let created = agent.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let has_worked = heard.and_then(|heard| heard.valid).is_some_and(is_recent);
    match token {
        TokenState::Invalid | TokenState::Forbidden | TokenState::Missing => Standing::Idle,
        // While a report comes that says neither, the status keeps what was said before.
        _ if told == Some(TokenState::Valid) || has_worked => Standing::Working,
        TokenState::Valid | TokenState::Unknown if created.is_none_or(is_recent) => Standing::New,
        TokenState::Valid | TokenState::Unknown => Standing::Silent,
    }
}

/// Whether a token that is forbidden one stream may still read another.
fn reads_a_stream(agent: &SiemAgent) -> bool {
    let Some(status) = agent.status.as_ref() else { return false };
    let enabled = agent.spec.event_types.enabled().filter_map(|stream| status.stream(stream));
    let (stands, flows): (Vec<_>, Vec<_>) = enabled.partition(|stream| stream.reason.is_some());
    !stands.is_empty() && !flows.is_empty()
}

#[cfg(test)]
mod tests;
