//! Condition types, statuses and reasons: the only place where they are spelled. Pure.
//!
//! On the wire a condition is Kubernetes' own `Condition`, whose fields are text; the words here are written into it and
//! compared with it. A reason that Kubernetes itself has given for a pod may be any other word.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident,)+ }) => {
        $(#[$about])*
        #[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $word,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$word,)+];

            /// As it is on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl PartialEq<$name> for str {
            fn eq(&self, word: &$name) -> bool {
                self == word.as_str()
            }
        }

        impl PartialEq<$name> for String {
            fn eq(&self, word: &$name) -> bool {
                self == word.as_str()
            }
        }
    };
}

words! {
    /// The type of a condition.
    ConditionType {
        /// Events are delivered.
        Ready,
        /// The operator is at work on it; present only while True.
        Reconciling,
        /// The spec cannot work; present only while True.
        Stalled,
        /// The operator writes nothing for it, because its user has said so; present only while True.
        Paused,
        /// The forwarder's pod is ready.
        WorkloadAvailable,
        /// The API takes the token.
        TokenValid,
        /// Events are delivered as they appear.
        Delivering,
    }
}

words! {
    /// The status of a condition.
    ConditionStatus {
        /// It holds.
        True,
        /// It does not.
        False,
        /// Nobody knows.
        Unknown,
    }
}

words! {
    /// The reason of a condition or of an Event.
    Reason {
        /// An object of an owned name belongs to somebody else.
        ForeignObject,
        /// The cluster's administrator lets only other namespaces export this tenant.
        SourceNotAllowed,
        /// A field that cannot work.
        InvalidSpec,
        /// The API server refuses an object that is made of the spec.
        Rejected,
        /// The operator may not change other workloads, which a sidecar needs.
        SidecarNotEnabled,
        /// There is no workload of the kind and name of `placement.sidecarOf`.
        SidecarHostMissing,
        /// The workload does not carry the annotation that allows this agent's sidecar.
        SidecarNotAllowed,
        /// Another object of its name has taken the host's place, and does not allow the sidecar.
        SidecarHostReplaced,
        /// The host has, or may have, more than one pod.
        SidecarHostScaled,
        /// The host's update strategy runs two pods at once.
        SidecarHostStrategy,
        /// Another agent's forwarder is a sidecar of that host already.
        SidecarHostTaken,
        /// The host has a container, volume or port of a name or number that the sidecar needs.
        SidecarNameClash,
        /// The containers of the host's pods see each other's processes.
        SidecarHostProcesses,
        /// Something else changes the sidecar back again and again.
        SidecarContested,
        /// The host has no replica: there is no pod for the sidecar.
        SidecarHostScaledToZero,
        /// The host's pods are started anew, to add, change or remove the sidecar; of an Event.
        SidecarHostRestart,
        /// This version cannot decode the SiemAgent.
        Undecodable,
        /// `spec.suspend` is true.
        Suspended,
        /// The annotation `siemagent.dev/paused` is `"true"`.
        Paused,
        /// Something is on its way.
        Progressing,
        /// The operator's release is rolled out to other agents first.
        RolloutQueued,
        /// The roll-out of the operator's release is halted.
        RolloutHalted,
        /// The forwarder's pod is ready.
        Available,
        /// The forwarder runs in the pod of the workload that hosts it.
        AvailableAsSidecar,
        /// A pod ended without a reason that is one word.
        PodFailed,
        /// Kubernetes' own word for a container that ends again and again.
        CrashLoopBackOff,
        /// Kubernetes' own word for a pod that no node takes.
        Unschedulable,
        /// The forwarder's report cannot be read.
        ReportUnavailable,
        /// The Secret or its key is absent.
        SecretMissing,
        /// The API refuses the token: 401.
        TokenInvalid,
        /// The token may read no enabled stream: 403.
        TokenForbidden,
        /// The token may not read one of the enabled streams: 403.
        StreamForbidden,
        /// There is no connection to the SIEM.
        TargetUnreachable,
        /// The SIEM takes no data from an open connection.
        TargetStalled,
        /// The portal is unreachable or fails.
        SourceUnreachable,
        /// The portal allows fewer requests.
        SourceThrottled,
        /// Portal and SIEM answer, and delivery is behind.
        Lagging,
        /// Events are delivered: the reason of Ready.
        Delivering,
        /// Events are delivered: the reason of Delivering.
        Healthy,
        /// The API takes the token.
        Valid,
        /// The API refuses the token.
        Invalid,
        /// The token may not read an enabled stream.
        Forbidden,
        /// There is no token.
        Missing,
        /// The token has not been tried yet.
        NotTried,
        /// Another agent exports the same events to the same receiver; of an Event.
        DuplicateExport,
        /// The connection has been down for more than two hours; of an Event.
        ConnectionError,
        /// The connection has been down for more than twelve hours; of an Event.
        Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_on_the_wire_as_they_are_spelled() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(*reason.as_str(), *reason);
            assert_eq!(reason.to_string(), reason.as_str());
        }
        for of in ConditionType::ALL {
            assert_eq!(serde_json::to_value(of).unwrap(), of.as_str());
        }
        assert_eq!(ConditionStatus::ALL.len(), 3);
        assert_eq!(serde_json::from_str::<Reason>("\"Lagging\"").unwrap(), Reason::Lagging);
    }
}
