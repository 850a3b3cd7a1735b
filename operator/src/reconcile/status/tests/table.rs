//! The contract's table of causes, row by row.

use siem_agent_crds::siem_agent::{State, StreamSource};

use super::*;

type Change = fn(&mut World);
/// Ready's status and reason, Reconciling, Stalled, TokenValid's status and reason, Delivering's status, state.
type Row = (&'static str, bool, Change, [&'static str; 7], State);

#[test]
fn every_cause_has_the_row_of_the_contract() {
    use State::{Connected, Created, Suspended};
    let none: Change = |_| {};
    let rows: Vec<Row> = vec![
        (
            "just created",
            false,
            |world| {
                world.workload = Workload::Progressing("the Deployment is being made");
                world.sighting = Sighting::default();
            },
            ["False", "Progressing", "True", "", "Unknown", "Progressing", "Unknown"],
            Created,
        ),
        (
            "first report awaited",
            false,
            |world| world.sighting = Sighting::default(),
            ["False", "Progressing", "True", "", "Unknown", "Progressing", "Unknown"],
            Created,
        ),
        (
            "report of an earlier configuration",
            true,
            |world| world.tell(|report| report.config_hash = "other".to_owned()),
            ["False", "Progressing", "True", "", "Unknown", "Progressing", "Unknown"],
            Connected,
        ),
        (
            "report of an earlier pod",
            true,
            |world| world.sighting.is_current = false,
            ["False", "Progressing", "True", "", "Unknown", "Progressing", "Unknown"],
            Connected,
        ),
        (
            "all well",
            true,
            none,
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "well at last",
            false,
            none,
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "UDP",
            true,
            |world| world.tell(|report| report.target.state = TargetState::Datagram),
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "Secret absent",
            true,
            |world| world.tell(|report| report.token.state = TokenState::Missing),
            ["False", "SecretMissing", "", "", "False", "Missing", "Unknown"],
            Connected,
        ),
        (
            "Secret absent from the start",
            false,
            |world| world.tell(|report| report.token.state = TokenState::Missing),
            ["False", "SecretMissing", "", "", "False", "Missing", "Unknown"],
            Created,
        ),
        (
            "401",
            true,
            |world| {
                world.tell(|report| {
                    report.token.state = TokenState::Invalid;
                    report.token.reason = Some("the API says: Invalid token".to_owned());
                });
            },
            ["False", "TokenInvalid", "", "", "False", "Invalid", "False"],
            Connected,
        ),
        (
            "403",
            true,
            |world| world.tell(|report| report.token.state = TokenState::Forbidden),
            ["False", "TokenForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on one stream",
            true,
            |world| world.tell(|report| forbid(report, Stream::Alerts)),
            ["False", "StreamForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on the other stream, and the forwarder says it of the token too",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Activities);
                    report.token.state = TokenState::Forbidden;
                });
            },
            ["False", "StreamForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on one stream from the start, before the SIEM is reached",
            false,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    report.target.state = TargetState::Unknown;
                });
            },
            ["False", "StreamForbidden", "", "", "False", "Forbidden", "False"],
            Created,
        ),
        (
            "403 on each stream",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    forbid(report, Stream::Activities);
                });
            },
            ["False", "TokenForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on the only enabled stream",
            true,
            |world| {
                world.disable_alerts();
                world.tell(|report| forbid(report, Stream::Activities));
            },
            ["False", "TokenForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on a stream that is not to be exported any more",
            true,
            |world| {
                world.disable_alerts();
                world.tell(|report| forbid(report, Stream::Alerts));
            },
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "403 on one stream and late",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    report.streams.get_mut(&Stream::Activities).unwrap().lag_seconds = Some(901.0);
                });
            },
            ["False", "StreamForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on one stream and SIEM down for a moment",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    target_down(report, 30);
                });
            },
            ["False", "StreamForbidden", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on one stream and SIEM down for a minute",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    target_down(report, 61);
                });
            },
            ["False", "TargetUnreachable", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "403 on one stream and portal unreachable for the other",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Activities);
                    source(report, SourceState::Unreachable);
                });
            },
            ["False", "SourceUnreachable", "", "", "False", "Forbidden", "False"],
            Connected,
        ),
        (
            "401 after 403 on one stream",
            true,
            |world| {
                world.tell(|report| {
                    forbid(report, Stream::Alerts);
                    report.token.state = TokenState::Invalid;
                });
            },
            ["False", "TokenInvalid", "", "", "False", "Invalid", "False"],
            Connected,
        ),
        (
            "SIEM down for a moment",
            true,
            |world| world.tell(|report| target_down(report, 30)),
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "SIEM down for a minute",
            true,
            |world| world.tell(|report| target_down(report, 61)),
            ["False", "TargetUnreachable", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "SIEM takes nothing for a minute",
            true,
            |world| {
                world.tell(|report| {
                    target_down(report, 61);
                    report.target.state = TargetState::Stalled;
                });
            },
            ["False", "TargetStalled", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "SIEM down from the start",
            false,
            |world| world.tell(|report| target_down(report, 30)),
            ["False", "Progressing", "True", "", "Unknown", "Progressing", "Unknown"],
            Created,
        ),
        (
            "portal unreachable",
            true,
            |world| world.tell(|report| source(report, SourceState::Unreachable)),
            ["False", "SourceUnreachable", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "portal unreachable, forwarder started since",
            true,
            |world| {
                world.tell(|report| {
                    source(report, SourceState::Unreachable);
                    report.token.state = TokenState::Unknown;
                });
            },
            ["False", "SourceUnreachable", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "portal throttles",
            true,
            |world| world.tell(|report| source(report, SourceState::Throttled)),
            ["False", "SourceThrottled", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "late though all is reachable",
            true,
            |world| {
                world.tell(|report| {
                    report.streams.get_mut(&Stream::Activities).unwrap().lag_seconds = Some(901.0);
                });
            },
            ["False", "Lagging", "", "", "True", "Valid", "False"],
            Connected,
        ),
        (
            "report cannot be read",
            true,
            |world| {
                world.sighting.failing =
                    Some(Failing { since: ago(60), reason: "refused".to_owned() });
            },
            ["False", "ReportUnavailable", "", "", "Unknown", "ReportUnavailable", "Unknown"],
            Connected,
        ),
        (
            "one report missed",
            true,
            |world| {
                world.sighting.failing =
                    Some(Failing { since: ago(10), reason: "refused".to_owned() });
            },
            ["True", "Delivering", "", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "image cannot be pulled",
            true,
            |world| {
                world.workload = Workload::Failing {
                    reason: "ImagePullBackOff".to_owned(),
                    message: "m".to_owned(),
                };
            },
            ["False", "ImagePullBackOff", "", "", "Unknown", "ImagePullBackOff", "Unknown"],
            Connected,
        ),
        (
            "foreign object",
            true,
            |world| {
                let text = "Deployment soc-forwarder is not this agent's".to_owned();
                world.problems = Some(vec![Problem { cause: Cause::ForeignObject, text }]);
            },
            ["False", "ForeignObject", "", "True", "Unknown", "ForeignObject", "Unknown"],
            Connected,
        ),
        (
            "suspended",
            true,
            |world| world.agent.spec.suspend = true,
            ["False", "Suspended", "", "", "Unknown", "Suspended", "False"],
            Suspended,
        ),
        (
            "queued for a roll-out",
            true,
            |world| world.queued = Some(Wait::Queued),
            ["True", "Delivering", "True", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "a roll-out that is halted",
            true,
            |world| world.queued = Some(Wait::Halted("ns/a does not come up".to_owned())),
            ["True", "Delivering", "True", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "queued while its pod runs an earlier configuration",
            true,
            |world| {
                world.queued = Some(Wait::Queued);
                world.tell(|report| report.config_hash = "other".to_owned());
            },
            ["True", "Delivering", "True", "", "True", "Valid", "True"],
            Connected,
        ),
        (
            "queued with a token that has ended",
            true,
            |world| {
                world.queued = Some(Wait::Queued);
                world.tell(|report| report.token.state = TokenState::Invalid);
            },
            ["False", "TokenInvalid", "True", "", "False", "Invalid", "False"],
            Connected,
        ),
    ];
    for (cause, was_well, change, expected, state) in rows {
        let mut world = world();
        if was_well {
            world = world.after(well());
        }
        change(&mut world);
        let status = world.status();
        let of = |type_: &str| {
            condition(&status, type_).map_or(("", ""), |condition| {
                (condition.status.as_str(), condition.reason.as_str())
            })
        };
        let seen = [
            of("Ready").0,
            of("Ready").1,
            of("Reconciling").0,
            of("Stalled").0,
            of("TokenValid").0,
            of("TokenValid").1,
            of("Delivering").0,
        ];
        assert_eq!((seen, status.state), (expected, Some(state)), "{cause}");
        if state == Suspended {
            assert_eq!(of("Delivering").1, "Suspended", "{cause}");
        }
        assert_eq!(status.observed_generation, 3, "{cause}");
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, Some(3), "{cause}");
            assert!(!condition.reason.is_empty() && !condition.message.is_empty(), "{cause}");
        }
        let token = status.token.unwrap().state;
        let token_word = match of_token(&status.conditions) {
            ("True", _) => "Valid",
            ("False", reason) => reason,
            _ => "Unknown",
        };
        assert_eq!(format!("{token:?}"), token_word, "{cause}");
    }
}

fn of_token(conditions: &[Condition]) -> (&str, &str) {
    let token = conditions.iter().find(|condition| condition.type_ == "TokenValid").unwrap();
    (&token.status, &token.reason)
}

#[test]
fn each_stream_names_its_source_and_lags_by_that_ones_poll_interval() {
    let mut world = world();
    let graph = serde_json::json!({"pollInterval": "1h"});
    world.agent.spec.source.graph = serde_json::from_value(graph).unwrap();
    let config_hash = objects(&world.agent).config_hash;
    world.tell(|report| report.config_hash = config_hash);
    let ready_with = |world: &mut World, stream: Stream| {
        world.tell(|report| {
            for (name, told) in &mut report.streams {
                told.lag_seconds = Some(if *name == stream { 1_000.0 } else { 1.0 });
            }
        });
        let status = world.with_facts(|facts| status(facts, NOW));
        let sources: Vec<_> = status.streams.iter().map(|stream| stream.source).collect();
        assert_eq!(sources, [Some(StreamSource::Graph), Some(StreamSource::CloudApps)]);
        status.is(ConditionType::Ready)
    };
    assert!(ready_with(&mut world, Stream::Alerts));
    assert!(!ready_with(&mut world, Stream::Activities));
}
