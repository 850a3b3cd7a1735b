//! The forwarder's NetworkPolicy, where it is asked for. Pure.
//!
//! A NetworkPolicy knows addresses, not names, so a host that is given by name is let through on its port to anywhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::defaults;
use siem_agent_crds::siem_agent::Protocol;

use super::validated::Validated;
use crate::names::{self, Owned};

/// A host and port that the forwarder talks to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    address: Option<IpAddr>,
    port: u16,
    protocol: &'static str,
}

pub(super) fn network_policy(validated: &Validated<'_>) -> NetworkPolicy {
    let name = validated.agent.metadata.name.as_deref().unwrap_or_default();
    let dns =
        NetworkPolicyEgressRule { ports: Some(vec![port(53, "UDP"), port(53, "TCP")]), to: None };
    let egress = std::iter::once(dns).chain(peers(validated).into_iter().map(|peer| {
        NetworkPolicyEgressRule {
            ports: Some(vec![port(peer.port, peer.protocol)]),
            to: peer.address.map(|address| {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let ip_block = IPBlock { cidr: format!("{address}/{bits}"), except: None };
                vec![NetworkPolicyPeer { ip_block: Some(ip_block), ..Default::default() }]
            }),
        }
    }));
    let named = &validated.spec().forwarder.network_policy.from;
    let from =
        std::iter::once(namespace(&validated.operator_namespace)).chain(named.iter().cloned());
    let admin = NetworkPolicyIngressRule {
        ports: Some(vec![port(ADMIN_PORT, "TCP")]),
        from: Some(from.collect()),
    };
    NetworkPolicy {
        metadata: names::metadata(validated.agent, Owned::NetworkPolicy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names::selector(name)),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![admin]),
            egress: Some(egress.collect()),
        }),
    }
}

/// In a fixed order, each once.
fn peers(validated: &Validated<'_>) -> BTreeSet<Peer> {
    let spec = validated.spec();
    let mut peers = BTreeSet::new();
    let source = defaults::source(spec);
    let urls = [
        source.cloud_apps.map(|portal| portal.url),
        source.graph.and_then(|graph| graph.url),
        source.auth.client_credentials.and_then(|client| client.authority_url),
        source.proxy.map(|proxy| proxy.url),
    ];
    peers.extend(urls.into_iter().flatten().map(|url| of_url(&url)));
    peers.insert(Peer {
        address: spec.syslog.bare_host().parse().ok(),
        port: defaults::port(&spec.syslog),
        protocol: if spec.syslog.protocol == Protocol::UDP { "UDP" } else { "TCP" },
    });
    peers
}

/// The schema lets only `scheme://host[:port][/]` through.
fn of_url(url: &str) -> Peer {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.trim_end_matches('/');
    let default = if scheme == "http" { 80 } else { 443 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
        Some(_) | None => (authority, default),
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    Peer { address, port, protocol: "TCP" }
}

/// All pods of a namespace.
fn namespace(name: &str) -> NetworkPolicyPeer {
    let labels = [("kubernetes.io/metadata.name".to_owned(), name.to_owned())];
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(labels.into()),
            match_expressions: None,
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(port: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_url_is_its_own_or_its_schemes() {
        let peer = |url: &str| {
            let peer = of_url(url);
            (peer.address.map(|address| address.to_string()), peer.port)
        };
        assert_eq!(peer("https://a.example"), (None, 443));
        assert_eq!(peer("http://proxy:3128"), (None, 3128));
        assert_eq!(peer("http://127.0.0.1:8080/"), (Some("127.0.0.1".to_owned()), 8080));
        assert_eq!(peer("https://[::1]"), (Some("::1".to_owned()), 443));
        assert_eq!(peer("https://[::1]:8443"), (Some("::1".to_owned()), 8443));
    }
}
