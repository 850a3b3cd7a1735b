//! What kubelet, containerd, CNI, kube-proxy and CoreDNS are told. Pure.
//!
//! Everything that a user's node does by default stays as it is: pull policies, back-off, the pace at which Secrets reach a
//! pod. What is set differs because the machine is shared, without a swap file of its own and without a way out.

use std::path::Path;

use serde_json::{Value, json};

use super::{ADDRESS, DNS, NAME, PAUSE, PODS};

/// The kubelet's file.
pub(super) fn kubelet(folder: &Path, plane: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": plane.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": plane.join("kubelet/tls.crt"),
        "tlsPrivateKeyFile": plane.join("kubelet/tls.key"),
        "containerRuntimeEndpoint": format!("unix://{}", folder.join("containerd.sock").display()),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS],
        "resolvConf": folder.join("resolv.conf"),
        "volumePluginDir": folder.join("volume-plugins"),
        // The disk is everybody's: how full it is must not decide what runs here.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "16Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
    })
}

/// kube-proxy's file.
pub(super) fn proxy(kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": NAME,
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": kubeconfig},
        // The kernel's settings are everybody's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}

/// One network: a pair of interfaces for each pod.
pub(super) fn network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

/// containerd's file. Without `restrict_oom_score_adj` runc wants a right that root in a container need not have.
pub(super) fn containerd(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 3
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{folder}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// CoreDNS's file: the cluster's Services; every name below `siem.test` is the node; nothing else exists.
pub(super) fn names(kubeconfig: &Path) -> String {
    let kubeconfig = kubeconfig.display();
    format!(
        r#"cluster.local {{
  bind {ADDRESS}
  errors
  kubernetes {{
    kubeconfig {kubeconfig}
  }}
}}
siem.test {{
  bind {ADDRESS}
  errors
  template IN A {{
    answer "{{{{ .Name }}}} 1 IN A {ADDRESS}"
  }}
  template ANY ANY {{
    rcode NOERROR
  }}
}}
. {{
  bind {ADDRESS}
  errors
  ready {ADDRESS}:8181
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"#
    )
}

/// The Service behind which pods find CoreDNS, and the API server's right to speak to the kubelet.
pub(super) fn objects(kubelets_client: &str) -> String {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS, "ports": ports},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ADDRESS]}],
        "ports": ports,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "kubelet-api"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": kubelets_client}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, slice, binding]}).to_string()
}
