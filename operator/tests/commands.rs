//! The commands that need no cluster, as users run them.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn operator(arguments: &[&str], stdin: &str) -> Output {
    operator_with(arguments, stdin.as_bytes())
}

fn operator_with(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_siem-operator"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn render_prints_what_is_expected() {
    let mut n_compared = 0;
    for entry in fs::read_dir("fixtures/render").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let file = path.display().to_string();
        let output = operator(&["render", "-f", &file, "--forwarder-image", "image:1"], "");
        assert!(output.status.success(), "{file}: {}", text(&output.stderr));
        let again = operator(
            &["render", "-f", "-", "--forwarder-image", "image:1"],
            &fs::read_to_string(&path).unwrap(),
        );
        assert_eq!(output.stdout, again.stdout, "{file}");
        let golden = path.with_extension("golden");
        #[expect(
            clippy::disallowed_methods,
            reason = "a test asks whether to rewrite what it expects"
        )]
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&golden, &output.stdout).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text(&output.stdout), expected, "{file}: UPDATE_EXPECT=1 rewrites it");
        n_compared += 1;
    }
    assert_eq!(n_compared, 6);
}

#[test]
fn render_prints_an_agent_with_its_defaults_which_is_itself_a_legal_one() {
    let legal = fs::read_to_string("fixtures/render/minimal.yaml").unwrap();
    let with = "  forwarder: {podOverrides: {spec: {dnsPolicy: Default}}}\n";
    let print = |manifest: &str| {
        let output =
            operator(&["render", "-f", "-", "--effective", "--forwarder-image", "i:1"], manifest);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let first = print(&format!("{legal}{with}"));
    for line in [
        "displayName: soc",
        "systemName: soc",
        "port: 514",
        "protocol: TCP",
        "header: Legacy",
        "framing: Newline",
        "maxMessageBytes: 8000",
        "startFrom: 48h",
        "image: i:1",
        "dnsPolicy: Default",
    ] {
        assert!(first.contains(line), "{line}: {first}");
    }
    assert_eq!(print(&first), first, "what is filled in fills in nothing more");
    let receiver =
        legal.replace("{host: siem.example.com}", "{host: siem.example.com, receiver: Elastic}");
    let of_receiver = print(&receiver);
    assert!(of_receiver.contains("port: 9003") && of_receiver.contains("receiver: Elastic"));
}

#[test]
fn render_refuses_what_the_api_server_would_refuse() {
    let legal = fs::read_to_string("fixtures/render/minimal.yaml").unwrap();
    for (more, field) in [
        ("  unknown: 1\n", "spec.unknown"),
        ("  startFrom: 9999h\n", "spec.startFrom"),
        (
            "  forwarder: {resources: {limits: {cpu: lots}}}\n",
            "spec.forwarder.resources.limits.cpu",
        ),
        ("  placement: {sidecarOf: {kind: DaemonSet, name: x}}\n", "spec.placement"),
        (
            "  forwarder: {podOverrides: {spec: {serviceAccountName: admin}}}\n",
            "spec.forwarder.podOverrides.spec.serviceAccountName: is what the operator needs itself",
        ),
    ] {
        let output = operator(&["render", "-f", "-"], &format!("{legal}{more}"));
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains(field), "{}", text(&output.stderr));
    }
}

#[test]
fn the_token_of_a_workload_identity_is_the_operators_own() {
    let legal = fs::read_to_string("fixtures/render/graph.yaml").unwrap();
    let with = |spec: &str| {
        let forwarder = format!("  forwarder: {{podOverrides: {{spec: {spec}}}}}");
        let manifest: String = legal
            .lines()
            .map(|line| if line.starts_with("  forwarder:") { &forwarder } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        operator(&["render", "-f", "-"], &manifest)
    };
    let mount = |path: &str| {
        format!(
            "{{containers: [{{name: forwarder, volumeMounts: [{{name: x, mountPath: {path}}}]}}]}}"
        )
    };
    for (spec, field) in [
        ("{volumes: [{name: identity, $patch: delete}]}", "volumes[identity]"),
        ("{volumes: [{name: identity, emptyDir: {}}]}", "volumes[identity]"),
        (&mount("/etc/siem-forwarder/identity"), "volumeMounts[/etc/siem-forwarder/identity]"),
        (&mount("/etc/siem-forwarder/identity/token"), "volumeMounts[/etc/siem-forwarder/identity"),
        (&mount("/etc/siem-forwarder"), "volumeMounts[/etc/siem-forwarder]"),
    ] {
        let output = with(spec);
        assert_eq!(output.status.code(), Some(2), "{spec}");
        let said = text(&output.stderr);
        assert!(said.contains(field) && said.contains("needs itself"), "{said}");
    }
    assert!(with("{volumes: [{name: x, emptyDir: {}}]}").status.success());
}

#[test]
fn every_illegal_manifest_is_refused() {
    for entry in fs::read_dir("../crds/fixtures/illegal").unwrap() {
        let path = entry.unwrap().path().display().to_string();
        assert_eq!(operator(&["render", "-f", &path], "").status.code(), Some(2), "{path}");
    }
}

/// As a PersistentVolumeClaim means it: absent is the cluster's default class, an empty text is no class.
#[test]
fn an_empty_storage_class_is_no_class_and_an_absent_one_the_clusters() {
    let minimal = fs::read_to_string("fixtures/render/minimal.yaml").unwrap();
    for (persistence, class) in [
        ("{enabled: true}", None),
        ("{enabled: true, storageClassName: \"\"}", Some("storageClassName: \"\"")),
        ("{enabled: true, storageClassName: fast}", Some("storageClassName: fast")),
    ] {
        let manifest = format!("{minimal}  forwarder: {{persistence: {persistence}}}\n");
        let output = operator(&["render", "-f", "-"], &manifest);
        let out = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let found = out.lines().map(str::trim).find(|line| line.starts_with("storageClassName"));
        assert_eq!(found, class, "{persistence}: {out}");
    }
}

#[test]
fn crd_prints_the_committed_one() {
    let output = operator(&["crd"], "");
    assert_eq!(text(&output.stdout), fs::read_to_string("../crds/siemagents.yaml").unwrap());
}

#[test]
fn init_writes_a_manifest_that_render_takes() {
    let output = operator(
        &[
            "init",
            "--name=soc",
            "--namespace=security",
            "--url=https://contoso.us2.portal.cloudappsecurity.com",
            "--syslog-host=siem.example.com",
            "--protocol=TLS",
            "--format=GenericCEF",
            "--time-format=RFC3164",
            "--no-activities",
            "--severity=High",
            "--proxy=proxy",
            "--display-name=SOC \"one\"",
        ],
        "",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rendered = operator(&["render", "-f", "-"], &text(&output.stdout));
    assert!(rendered.status.success(), "{}", text(&rendered.stderr));
    for expected in
        ["displayName: SOC \"one\"", "url: http://proxy:8080", "- High", "protocol: TLS"]
    {
        assert!(text(&rendered.stdout).contains(expected), "{expected}");
    }
    let illegal = ["init", "--name=soc", "--url=ftp://x", "--syslog-host=h"];
    assert_eq!(operator(&illegal, "").status.code(), Some(2));
    assert!(!operator(&["init", "--name=soc"], "").status.success());
}

#[test]
fn init_never_shows_the_token_of_the_old_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let file = path.display().to_string();
    let unit = "[Service]\nExecStart=/usr/bin/java -jar /opt/mcas-siemagent-0.87.20-signed.jar \\\n \
                --logsDirectory /var/log --proxy proxy:3128 --token UExBTlRFRA==\n";
    let shown = |output: &Output| text(&output.stdout) + &text(&output.stderr);
    let given = ["init", "--from-jar", "-", "--token-out", &file];
    let output = operator(&given, unit);
    assert!(output.status.success(), "{}", shown(&output));
    assert!(!shown(&output).contains("UExBTlRFRA"));
    assert!(text(&output.stdout).contains("http://proxy:3128"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "UExBTlRFRA==");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let rendered = operator(&["render", "-f", "-"], &text(&output.stdout));
    assert!(rendered.status.success(), "{}", shown(&rendered));
    // The file is there already, and is not overwritten; nor is the token shown then.
    let again = operator(&given, unit);
    assert_eq!(again.status.code(), Some(1));
    for broken in [
        "java -jar mcas-siemagent.jar --token UExBTlRFRA== --proxy 'a b'",
        "java -jar mcas-siemagent.jar --proxy --token UExBTlRFRA==",
        "java --token UExBTlRFRA==",
    ] {
        assert!(!shown(&operator(&["init", "--from-jar", "-"], broken)).contains("UExBTlRFRA"));
    }
    assert!(!shown(&again).contains("UExBTlRFRA"));
    assert!(Path::new(&file).is_file());
}

/// The forms in which the old agent runs in containers, and a proxy as Java has it.
#[test]
fn init_reads_lists_of_arguments_and_the_proxy_of_java() {
    let planted = "UExBTlRFRA".repeat(8);
    let dockerfile = format!(
        "FROM openjdk:8u212-jre-slim\nENV TOKEN=\"\"\nCMD [\"java\", \"-jar\", \"/mcas-siemagent-0.87.20-signed.jar\", \
         \"--logsDirectory\", \"/logs\", \"--proxy\", \"proxy.example.com\", \"--token\", \"{planted}\"]\n"
    );
    let pod = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: mcas-siemagent}\nspec:\n  template:\n    spec:\n      \
               containers:\n      - name: agent\n        command: [\"java\"]\n        args: [\"-Xmx256m\", \"-jar\", \
               \"/app/mcas-siemagent-0.87.20-signed.jar\", \"--proxy\", \"proxy.example.com:8080\", \"--token\", \"$(T)\"]\n        \
               env:\n        - {name: T, valueFrom: {secretKeyRef: {name: mcas, key: token}}}\n";
    let java = format!(
        "java -Dhttps.proxyHost=proxy.example.com -Dhttps.proxyPort=3128 -Dhttp.nonProxyHosts='localhost|10.*|*.corp.example' \
         -Dhttps.proxyPassword={planted} -jar /opt/mcas-siemagent.jar --token {planted} &\n"
    );
    let fixed_proxy = format!("java -jar mcas-siemagent.jar --token {planted} --proxy $PROXY");
    for (text_given, on_stdout, on_stderr) in [
        (
            &*dockerfile,
            &["url: http://proxy.example.com:8080"][..],
            &["--token-out", "--logsDirectory"][..],
        ),
        (pod, &["url: http://proxy.example.com:8080"], &["a variable"]),
        (
            &java,
            &["url: http://proxy.example.com:3128", "- 10.0.0.0/8", "- localhost", "corp.example"],
            &["credentialsSecretRef", "--token-out"],
        ),
    ] {
        let output = operator(&["init", "--from-jar", "-"], text_given);
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{error}");
        assert!(!out.contains("UExBTlRFRA") && !error.contains("UExBTlRFRA"));
        let rendered = operator(&["render", "-f", "-"], &out);
        assert!(rendered.status.success(), "{}", text(&rendered.stderr));
        for expected in on_stdout {
            assert!(
                text(&rendered.stdout).contains(expected),
                "{expected}: {}",
                text(&rendered.stdout)
            );
        }
        for expected in on_stderr {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
    let refused = operator(&["init", "--from-jar", "-"], &fixed_proxy);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("give --proxy"), "{}", text(&refused.stderr));
    let given = operator(&["init", "--from-jar", "-", "--proxy", "p:1"], &fixed_proxy);
    assert!(given.status.success() && text(&given.stdout).contains("http://p:1"));
}

#[test]
fn init_asks_for_an_application_where_graph_is_the_source() {
    let client = "--client-id=11111111-0000-0000-0000-000000000000";
    let given = ["init", "--source=graph", "--name=soc", "--syslog-host=h", client];
    let init = |more: &[&str]| operator(&[&given[..], more].concat(), "");
    let with_secret =
        init(&["--tenant-id=contoso.com", "--namespace=security", "--cloud=USGovernment"]);
    let out = text(&with_secret.stdout);
    for expected in [
        "graph: {cloud: \"USGovernment\"}",
        "tenantId: \"contoso.com\"",
        "clientSecretRef: {name: \"defender\"}",
        "generic defender --namespace security --from-file=clientSecret=FILE",
        "SecurityAlert.Read.All, ThreatHunting.Read.All",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    assert!(!out.contains("cloudApps"), "{out}");
    assert!(operator(&["render", "-f", "-"], &out).status.success(), "{out}");
    let without_secret = init(&["--tenant-id=contoso.com", "--workload-identity", "--no-alerts"]);
    let out = text(&without_secret.stdout);
    for expected in [
        "workloadIdentity: {}",
        "subject:  system:serviceaccount:NAMESPACE:soc-forwarder",
        "audience: api://AzureADTokenExchange",
        "#   ThreatHunting.Read.All",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    assert!(!out.contains("create secret") && !out.contains("SecretRef"), "{out}");
    assert!(operator(&["render", "-f", "-"], &out).status.success(), "{out}");
    for (more, expected) in [
        (&[][..], "needs --tenant-id and --client-id"),
        (&["--tenant-id=t", "--url=https://t.example"], "--url is the portal's"),
        (&["--tenant-id=t", "--cloud=China"], "spec.source.graph.cloud"),
    ] {
        let output = init(more);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
    let portal = ["init", "--name=soc", "--syslog-host=h"];
    for (more, expected) in [
        (&["--url=https://t.example", "--workload-identity"][..], "need --source graph"),
        (&[], "--url is missing"),
    ] {
        let output = operator(&[&portal[..], more].concat(), "");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

#[test]
fn init_moves_an_old_agent_to_graph_without_its_token() {
    let line = "java -jar /opt/mcas-siemagent.jar --proxy proxy:3128 --token UExBTlRFRA==";
    let old = ["init", "--from-jar=-", "--source=Graph"];
    let output = operator(&old, line);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(!out.contains("UExBTlRFRA") && !said.contains("UExBTlRFRA"), "{out}{said}");
    assert!(out.contains("http://proxy:3128") && out.contains("graph: {}"), "{out}");
    assert!(!said.contains("--token-out") && !said.contains("the portal; replace"), "{said}");
    for expected in ["--tenant-id", "--client-id", "--syslog-host", "does not take it"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(operator(&["render", "-f", "-"], &out).status.success(), "{out}");
    let refused = operator(&[&old[..], &["--token-out=/nowhere/token"]].concat(), line);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("leave it out"), "{}", text(&refused.stderr));
}

#[test]
fn init_reads_what_windows_writes_and_says_what_it_cannot_read() {
    let task = "\u{feff}<Arguments>-jar mcas-siemagent.jar --proxy proxy --token UExB</Arguments>";
    let little: Vec<u8> = task.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = task.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [&little, &big, &task.as_bytes().to_vec()] {
        let output = operator_with(&["init", "--from-jar", "-"], bytes);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("http://proxy:8080"));
    }
    for (bytes, expected) in [
        (&b"\xff\xfe\x00"[..], "standard input is no text"),
        (b"\x80\x81", "standard input is no text"),
        (b"", "there is no text"),
        (b"java -jar $JAR --token UExB", "/proc/PID/cmdline"),
        (b"java -jar siemagent.jar --proxy http://u:p@h --token UExB", "credentialsSecretRef"),
    ] {
        let output = operator_with(&["init", "--from-jar", "-"], bytes);
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    let output =
        operator(&["init", "--from-jar", "-"], "java -jar siemagent.jar $OPTS --token UExB");
    assert!(
        text(&output.stderr).contains("1 of the words after the jar"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn levels_that_are_none_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_siem-operator"))
        .args(["run", "--listen", "127.0.0.1:0"])
        .env("RUST_LOG", "siem_operator=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("RUST_LOG: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn an_address_that_is_none_is_a_wrong_argument() {
    let output = operator(&["run", "--listen", "nonsense"], "");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("--listen") && said.contains("ADDRESS:PORT"), "{said}");
}
