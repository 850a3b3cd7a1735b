//! Who gets how many requests, by example and as laws over generated fleets.

use super::*;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);
const URL: &str = "https://t.example";

fn claimant(namespace: &str, name: &str, ceiling: Option<u32>, standing: Standing) -> Claimant {
    let api = StreamSource::CloudApps;
    let claim = Claim { api, tenant: same::tenant(URL), ceiling };
    Claimant { key: Key::new(namespace, name), claim, standing }
}

fn of_tenant(tenant: &str, mut claimant: Claimant) -> Claimant {
    claimant.claim.tenant = tenant.to_owned();
    claimant
}

fn tenants(requests: u32) -> Tenants {
    Tenants::read(&[format!(r#"{{"url": "{URL}", "requestsPerMinute": {requests}}}"#)]).unwrap()
}

fn shares(claimants: &[Claimant], tenants: &Tenants) -> Vec<u32> {
    let shares = Shares::of(claimants, tenants);
    let allowed = |claimant: &Claimant| shares.allowed(&claimant.key).unwrap();
    claimants.iter().map(|claimant| allowed(claimant).requests_per_minute()).collect()
}

fn by_default(claimants: &[Claimant]) -> Vec<u32> {
    shares(claimants, &Tenants::default())
}

use Standing::{Idle, New, Silent, Working};

#[test]
fn a_tenants_requests_are_divided_whole_among_those_that_work() {
    let working = |name| claimant("ns", name, None, Working);
    assert_eq!(by_default(&[working("a")]), [30]);
    assert_eq!(by_default(&[working("a"), working("b"), working("c"), working("d")]), [8, 8, 7, 7]);
    let other = of_tenant("https://other.example", working("z"));
    assert_eq!(by_default(&[working("a"), working("b"), other]), [15, 15, 30]);
    // It could begin at once with what it would have.
    let idle = claimant("ns", "c", None, Idle);
    assert_eq!(by_default(&[working("a"), working("b"), idle]), [15, 15, 10]);
}

#[test]
fn a_ceiling_is_its_agents_alone_and_what_it_leaves_goes_to_the_others() {
    let working = |name, ceiling| claimant("ns", name, Some(ceiling), Working);
    assert_eq!(by_default(&[working("a", 3), working("b", 30), working("c", 30)]), [3, 14, 13]);
    // In one namespace the largest given is the budget.
    assert_eq!(by_default(&[working("a", 10), working("b", 60)]), [10, 50]);
    assert_eq!(by_default(&[working("a", 10), working("b", 10)]), [5, 5]);
    let none = claimant("ns", "b", None, Working);
    assert_eq!(by_default(&[working("a", 10), none]), [10, 20]);
    // The administrator's word is not overruled by an agent's.
    assert_eq!(shares(&[working("a", 6000)], &tenants(40)), [40]);
    assert_eq!(shares(&[working("a", 5)], &tenants(40)), [5]);
}

#[test]
fn an_agent_of_another_namespace_without_a_token_takes_nothing() {
    let victim = claimant("victim", "a", Some(60), Working);
    for standing in [Idle, Silent] {
        let foe = claimant("foe", "a", Some(1), standing);
        assert_eq!(by_default(&[victim.clone(), foe])[0], 60, "{standing:?}");
    }
    // New ones count as one, however many they are, and decide nothing.
    let mut fleet = vec![victim.clone()];
    fleet.extend((0..100).map(|n| claimant("foe", &format!("a{n}"), Some(1), New)));
    assert_eq!(by_default(&fleet)[0], 30);
    // Working beside it is what everybody may do who has a token.
    assert_eq!(by_default(&[victim, claimant("foe", "a", Some(1), Working)]), [29, 1]);
}

#[test]
fn new_ones_of_a_namespace_share_what_one_would_have() {
    let new = |name| claimant("ns", name, None, New);
    assert_eq!(by_default(&[new("a"), new("b"), new("c"), new("d")]), [8, 8, 7, 7]);
    let working = claimant("ns", "w", None, Working);
    assert_eq!(by_default(&[working, new("a"), new("b")]), [15, 8, 7]);
    // Those of which nothing is heard are held to as much.
    let silent = |name| claimant("ns", name, None, Silent);
    assert_eq!(by_default(&[silent("a"), silent("b")]), [15, 15]);
}

/// A fleet on one URL, small numbers so that edges are met.
fn fleet(random: &mut fastrand::Rng) -> Vec<Claimant> {
    let n_agents = random.usize(1..12);
    let agents = (0..n_agents).map(|n| {
        let standing = [Working, Working, New, Silent, Idle][random.usize(0..5)];
        let ceiling = random.bool().then(|| random.u32(1..50));
        claimant(["one", "two", "three"][random.usize(0..3)], &format!("a{n}"), ceiling, standing)
    });
    agents.collect()
}

#[test]
fn what_is_given_is_never_more_than_the_budget_nor_more_than_a_ceiling() {
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..2_000 {
        let fleet = fleet(&mut random);
        let budget = random.u32(1..100);
        let given = shares(&fleet, &tenants(budget));
        let counting: Vec<_> = fleet
            .iter()
            .zip(&given)
            .filter(|(claimant, _)| matches!(claimant.standing, Working | New))
            .collect();
        let sum: u32 = counting.iter().map(|(_, share)| **share).sum();
        let n_counting = u32::try_from(counting.len()).unwrap();
        // Everybody may ask once a minute at least.
        assert!(
            sum <= budget.max(n_counting) || given.contains(&1),
            "{fleet:?} {budget} {given:?}"
        );
        if counting.iter().all(|(_, share)| **share > 1) {
            assert!(sum <= budget, "{fleet:?} {budget} {given:?}");
        }
        for (claimant, share) in fleet.iter().zip(&given) {
            assert!(*share >= 1 && *share <= claimant.most(), "{claimant:?} {share}");
        }
        // Nothing lies idle while somebody could use it.
        let is_content = counting.iter().all(|(claimant, share)| **share == claimant.most());
        assert!(counting.is_empty() || is_content || sum >= budget, "{fleet:?} {budget} {given:?}");
    }
}

#[test]
fn what_others_write_changes_nobodys_share_but_by_their_number() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2_000 {
        let mut fleet = fleet(&mut random);
        fleet.push(claimant("victim", "v", random.bool().then(|| random.u32(1..90)), Working));
        let share = |fleet: &[Claimant]| *by_default(fleet).last().unwrap();
        let before = share(&fleet);
        let is_foreign = |claimant: &Claimant| claimant.key.namespace != "victim";
        // Other values: never less than if they all wanted as much as they can get.
        let mut greedy = fleet.clone();
        greedy.iter_mut().filter(|it| is_foreign(it)).for_each(|it| it.claim.ceiling = None);
        assert!(before >= share(&greedy), "{fleet:?}");
        let mut largest = fleet.clone();
        largest.iter_mut().filter(|it| is_foreign(it)).for_each(|it| it.claim.ceiling = Some(6000));
        assert_eq!(share(&greedy), share(&largest), "{fleet:?}");
        // More that do not work, of whatever values.
        for n in 0..random.usize(1..20) {
            let standing = [Silent, Idle][random.usize(0..2)];
            let ceiling = random.bool().then(|| random.u32(1..6000));
            fleet.insert(0, claimant("foe", &format!("f{n}"), ceiling, standing));
        }
        assert_eq!(share(&fleet), before, "{fleet:?}");
        // However many new ones come from one namespace, it is as if it were one.
        let new = |n: usize| claimant("foe", &format!("n{n}"), None, New);
        fleet.insert(0, new(0));
        let beside_one = share(&fleet);
        for n in 1..random.usize(2..50) {
            fleet.insert(0, new(n));
        }
        assert_eq!(share(&fleet), beside_one, "{fleet:?}");
    }
}

#[test]
fn the_others_are_named_by_number_and_namespace() {
    let working = |namespace: &str, n: usize| claimant(namespace, &format!("a{n}"), None, Working);
    let others = |fleet: &[Claimant]| {
        let shares = Shares::of(fleet, &Tenants::default());
        shares.allowed(&fleet[0].key).unwrap().portal.as_ref().unwrap().others.clone()
    };
    assert!(others(&[working("ns", 0), claimant("foe", "x", None, Silent)]).is_nobody());
    let two = [working("ns", 0), working("b", 1)];
    assert_eq!(others(&two).to_string(), "1 other agent, in the namespace b");
    let mut fleet = vec![working("ns", 0)];
    fleet.extend((0..9).map(|n| working(["a", "b", "c"][n % 3], n)));
    assert_eq!(others(&fleet).to_string(), "9 other agents, in the namespaces a, b, c");
    fleet.extend((0..90).map(|n| working(["d", "e"][n % 2], n)));
    let many = others(&fleet);
    assert_eq!(many.to_string(), "at least 10 other agents, in the namespaces a, b, c and others");
    // One more of so many is no news.
    fleet.pop();
    assert_eq!(others(&fleet), many);
}

#[test]
fn an_agent_counts_by_what_its_report_has_said() {
    let text = format!(
        "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\n\
         metadata: {{name: a, namespace: ns, generation: 2, creationTimestamp: '2020-01-01T00:00:00Z'}}\n\
         spec:\n  source: {{cloudApps: {{url: '{URL}'}}, auth: {{tokenSecretRef: {{name: a}}}}}}\n  syslog: {{host: h}}\n"
    );
    let old = siem_agent_crds::manifest::read(&text).unwrap();
    let with = |token: &str, stalled: i64| {
        let mut agent = old.clone();
        let status = serde_json::json!({
            "observedGeneration": 2, "token": {"state": token},
            "conditions": [{
                "type": "Stalled", "status": "True", "reason": "r", "message": "", "observedGeneration": stalled,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        agent.status = Some(serde_json::from_value(status).unwrap());
        agent
    };
    let ago = |seconds| Some(NOW - SignedDuration::from_secs(seconds));
    let heard = |token, valid| Some(Heard { token, valid });
    let is = |agent: &SiemAgent, heard| standing(agent, heard, NOW);
    assert_eq!(is(&old, None), Silent);
    let mut young = old.clone();
    young.metadata.creation_timestamp =
        ago(299).map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
    assert_eq!(is(&young, None), New);
    young.metadata.creation_timestamp =
        ago(300).map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
    assert_eq!(is(&young, None), Silent);
    for (token, expected) in [
        (TokenState::Valid, Working),
        (TokenState::Unknown, Working),
        (TokenState::Invalid, Idle),
        (TokenState::Forbidden, Idle),
        (TokenState::Missing, Idle),
    ] {
        assert_eq!(is(&old, heard(token, ago(10))), expected, "{token:?}");
        assert_eq!(is(&with(&format!("{token:?}"), 1), heard(token, ago(10))), expected);
    }
    assert_eq!(is(&old, heard(TokenState::Valid, ago(301))), Silent);
    assert_eq!(is(&old, heard(TokenState::Unknown, None)), Silent);
    // Another operator has heard it, and this one nothing yet; then it says something else.
    assert_eq!(is(&with("Valid", 1), None), Working);
    assert_eq!(is(&with("Valid", 1), heard(TokenState::Invalid, ago(1))), Idle);
    assert_eq!(is(&with("Invalid", 1), None), Idle);
    assert_eq!(is(&with("Valid", 2), None), Idle);
    let mut suspended = with("Valid", 1);
    suspended.spec.suspend = true;
    assert_eq!(is(&suspended, None), Idle);
}

#[test]
fn an_agent_that_may_not_export_a_tenant_does_not_count_there() {
    let text = format!(
        "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: a, namespace: ns}}\n\
         spec:\n  source: {{cloudApps: {{url: '{URL}:443/'}}, auth: {{tokenSecretRef: {{name: a}}}}}}\n  syslog: {{host: h}}\n"
    );
    let agent = Agent::for_test(siem_agent_crds::manifest::read(&text).unwrap());
    let heard = Some(Heard { token: TokenState::Valid, valid: Some(NOW) });
    let standing = |namespaces: &str| {
        let text = format!(r#"{{"url": "{URL}", "namespaces": {namespaces}}}"#);
        let tenants = Tenants::read(&[text]).unwrap();
        Claimant::of(&agent, heard, &tenants, NOW).next().unwrap().standing
    };
    assert_eq!(standing(r#"["ns"]"#), Working);
    assert_eq!(standing(r#"["other"]"#), Idle);
}

#[test]
fn only_those_are_told_whose_share_has_changed() {
    let other = of_tenant("https://u.example", claimant("ns", "b", None, Working));
    let two = [claimant("ns", "a", None, Working), other];
    let three = [two[0].clone(), two[1].clone(), claimant("ns", "c", None, Working)];
    let of = |claimants: &[Claimant]| Shares::of(claimants, &Tenants::default());
    let (before, after) = (of(&two), of(&three));
    let changed: Vec<_> = after.changed_since(&before).map(|key| key.name.as_str()).collect();
    assert_eq!(changed, ["a", "c"]);
}

/// An agent of which a source is given and a stream exported.
fn agent_of(name: &str, source: &str, event_types: &str) -> Agent {
    let text = format!(
        "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}, namespace: ns}}\nspec:\n  source: {{{source}, \
         auth: {{clientCredentials: {{tenantId: Contoso.com, clientId: 00000000-0000-0000-0000-000000000000, clientSecretRef: {{name: a}}}}}}}}\n  \
         syslog: {{host: h}}\n  eventTypes: {{{event_types}}}\n"
    );
    Agent::for_test(siem_agent_crds::manifest::read(&text).unwrap())
}

#[test]
fn each_api_has_a_budget_of_its_own_and_one_agent_may_claim_both() {
    let portal = format!("cloudApps: {{url: '{URL}', requestsPerMinute: 20}}");
    let both = format!("{portal}, graph: {{requestsPerMinute: 40}}");
    let from_graph = "activities: {from: Graph}, alerts: {from: CloudApps}";
    let agents = [
        agent_of("a", &both, from_graph),
        agent_of("b", "graph: {}", ""),
        agent_of("c", &portal, ""),
        // Graph's alerts take nothing from anybody.
        agent_of("d", "graph: {}", "activities: {enabled: false}"),
    ];
    let heard = Some(Heard { token: TokenState::Valid, valid: Some(NOW) });
    let read = |texts: &[&str]| {
        Tenants::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    };
    let given = |tenants: &Tenants| {
        let claimants = agents.iter().flat_map(|agent| Claimant::of(agent, heard, tenants, NOW));
        let shares = Shares::of(&claimants.collect::<Vec<_>>(), tenants);
        agents.each_ref().map(|agent| {
            let allowed = shares.allowed(&agent.key).cloned().unwrap_or_default();
            assert!(allowed.is_for(&agent.spec));
            (allowed.requests_per_minute(), allowed.hunting_per_minute())
        })
    };
    // In one namespace the largest given is the budget.
    assert_eq!(given(&Tenants::default()), [(10, Some(20)), (20, Some(20)), (10, None), (1, None)]);
    let tenants = read(&[r#"{"tenantId": "contoso.COM", "requestsPerMinute": 8}"#]);
    assert_eq!(given(&tenants), [(10, Some(4)), (4, Some(4)), (10, None), (1, None)]);
    let alone = |tenants: &Tenants| {
        agents.each_ref().map(|agent| {
            let allowed = alone(agent, tenants);
            (allowed.requests_per_minute(), allowed.hunting_per_minute())
        })
    };
    assert_eq!(alone(&Tenants::default()), [(20, Some(40)), (30, Some(30)), (20, None), (1, None)]);
    assert_eq!(alone(&tenants), [(20, Some(8)), (8, Some(8)), (20, None), (1, None)]);
}

#[test]
fn with_whom_each_api_is_shared_is_said_apart() {
    let both = format!("cloudApps: {{url: '{URL}'}}, graph: {{}}");
    let agents = [
        agent_of("a", &both, "activities: {from: Graph}, alerts: {from: CloudApps}"),
        agent_of("b", "graph: {}", ""),
    ];
    let shared = |agents: &[Agent]| {
        let heard = Some(Heard { token: TokenState::Valid, valid: Some(NOW) });
        let tenants = Tenants::default();
        let claimants = agents.iter().flat_map(|agent| Claimant::of(agent, heard, &tenants, NOW));
        let shares = Shares::of(&claimants.collect::<Vec<_>>(), &tenants);
        shares.allowed(&agents[0].key).unwrap().shared()
    };
    assert_eq!(shared(&agents[..1]), "");
    let hunting =
        "; the tenant's hunting queries are shared with 1 other agent, in the namespace ns";
    assert_eq!(shared(&agents), hunting);
    let third = agent_of("c", &both, "activities: {from: CloudApps}");
    let [one, two] = agents;
    let requests = "; the tenant's requests are shared with 1 other agent, in the namespace ns";
    assert_eq!(shared(&[one, two, third]), format!("{requests}{hunting}"));
}
