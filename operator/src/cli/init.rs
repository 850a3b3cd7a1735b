//! `siem-operator init`: a SiemAgent from the questions of the portal's wizard, or from how the old agent was started.
//!
//! What is printed is a manifest that `kubectl apply` takes, and where its Secret goes. The token is never printed: with
//! `--token-out` it goes into a file that only its owner can read, otherwise nowhere.

mod graph;
mod old_agent;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use siem_agent_crds::{manifest, proxy_address};

use super::{Failure, complain, print, read};
use graph::{GraphArguments, SourceKind, Whose};
use old_agent::{OldAgent, Proxy};

/// Legal, and plainly not meant: what the old start line does not know.
const UNKNOWN_URL: &str = "https://CHANGE-ME.portal.cloudappsecurity.com";
const UNKNOWN_HOST: &str = "CHANGE-ME.example.com";

/// A manifest without the proxy would look whole and reach nothing.
const PROXY_ELSEWHERE: &str = "the old line's proxy is what a variable, a command or a template gives, and the text does \
                               not say what that is: give --proxy ADDRESS[:PORT]";

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The SiemAgent's name. With --from-jar the default is siem-agent
    #[arg(long, required_unless_present = "from_jar")]
    name: Option<String>,
    /// Where alerts and activities come from.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    source: SourceKind,
    /// The tenant's API URL: in the portal Settings, Cloud Apps, About. Needed but with --from-jar or --source graph
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    graph: GraphArguments,
    /// Remote syslog host.
    #[arg(long, value_name = "HOST", required_unless_present = "from_jar")]
    syslog_host: Option<String>,
    /// Remote syslog port. Default: 514; 6514 for TLS
    #[arg(long, value_name = "PORT")]
    syslog_port: Option<u16>,
    /// UDP, TCP or TLS.
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// Where it goes. Default: where kubectl would put it
    #[arg(long)]
    namespace: Option<String>,
    /// The name that people read.
    #[arg(long)]
    display_name: Option<String>,
    /// The Secret with the API token, under the key `token`; with --source graph the client secret, under `clientSecret`.
    #[arg(long, value_name = "NAME", default_value = "defender")]
    secret_name: String,
    /// What listens there, such as Rsyslog, SyslogNg, SC4S, Sentinel or QRadar: it sets the defaults that this receiver takes.
    #[arg(long, value_name = "RECEIVER")]
    receiver: Option<String>,
    /// SIEM format: GenericCEF or ArcSight. Default: GenericCEF
    #[arg(long)]
    format: Option<String>,
    /// Time format: RFC5424, RFC3164 or RFC3164WithYear. Default: RFC5424, or what the receiver takes
    #[arg(long)]
    time_format: Option<String>,
    /// Leaves the PRI out of the header.
    #[arg(long)]
    no_pri: bool,
    /// Leaves the system's name out of the header.
    #[arg(long)]
    no_system_name: bool,
    /// Exports no alerts.
    #[arg(long)]
    no_alerts: bool,
    /// Exports no activities.
    #[arg(long)]
    no_activities: bool,
    /// Only alerts of this severity: Low, Medium, High or Informational; may be given several times.
    #[arg(long = "severity", value_name = "SEVERITY")]
    severities: Vec<String>,
    /// Only what concerns this app, by the portal's number; may be given several times.
    #[arg(long = "service", value_name = "NUMBER")]
    services: Vec<i64>,
    /// The proxy on the way to the source; port 8080 unless given.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    proxy: Option<String>,
    /// Reads an old `java -jar …` line or the file that holds it: script, unit file, Dockerfile, pod, compose file, task;
    /// `-` is standard input.
    #[arg(long, value_name = "FILE")]
    from_jar: Option<PathBuf>,
    /// Writes the old line's token into this new file, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "from_jar")]
    token_out: Option<PathBuf>,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), Failure> {
    if let Some(problem) = problem(arguments) {
        return Err(Failure::Given(problem.to_owned()));
    }
    let old = match &arguments.from_jar {
        Some(path) => old_agent::read(&start_line(path)?).map_err(Failure::Given)?,
        None => OldAgent::default(),
    };
    let proxy = match (arguments.proxy.as_deref(), &old.proxy) {
        (Some(address), _) => Some(proxy(address).map_err(Failure::Given)?),
        (None, Some(Proxy::Address(address))) => Some(proxy(address).map_err(Failure::Given)?),
        (None, Some(Proxy::Elsewhere)) => return Err(Failure::Given(PROXY_ELSEWHERE.to_owned())),
        (None, None) => None,
    };
    let text = manifest(arguments, proxy.as_deref(), &old.no_proxy);
    manifest::read(&text).map_err(|problems| Failure::Given(problems.to_string()))?;
    let mut token_file = "FILE".to_owned();
    if let Some(path) = &arguments.token_out {
        let token = old.token.as_deref().ok_or_else(|| {
            Failure::Given("the old line holds no token that --token-out could take".to_owned())
        })?;
        keep(path, token).map_err(|error| {
            Failure::World(format!("cannot write the token to {}: {error}", path.display()))
        })?;
        token_file = path.display().to_string();
    }
    if arguments.from_jar.is_some() {
        tell(arguments, &old);
    }
    print(&(text + &secret(arguments, &token_file)))
}

/// What is missing for the source, or belongs to the other one.
fn problem(arguments: &InitArguments) -> Option<&'static str> {
    let InitArguments { graph, url, from_jar, token_out, .. } = arguments;
    match arguments.source {
        SourceKind::CloudApps if graph.is_given() => {
            Some("--tenant-id, --client-id, --cloud and --workload-identity need --source graph")
        }
        SourceKind::CloudApps if url.is_none() && from_jar.is_none() => {
            Some("--url is missing: in the portal Settings, Cloud Apps, About")
        }
        SourceKind::Graph if url.is_some() => {
            Some("--url is the portal's, which --source graph does not ask: leave one of them out")
        }
        SourceKind::Graph if token_out.is_some() => Some(
            "--token-out keeps a token of the portal, which Microsoft Graph does not take: leave it out",
        ),
        SourceKind::Graph if !graph.is_whole() && from_jar.is_none() => {
            Some("--source graph needs --tenant-id and --client-id, of an application in Entra ID")
        }
        SourceKind::CloudApps | SourceKind::Graph => None,
    }
}

/// The text with the old start line. What was given as the file's name is not repeated: it may be the line itself.
fn start_line(path: &Path) -> Result<String, Failure> {
    read(path).map_err(|failure| {
        if path.as_os_str() == "-" {
            return failure;
        }
        Failure::Given(
            "the file of --from-jar cannot be read as text; give the name of a file, or `-` and the old start line on standard input"
                .to_owned(),
        )
    })
}

fn manifest(arguments: &InitArguments, proxy: Option<&str>, no_proxy: &[String]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut yaml = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata:\n".to_owned();
    let mut line = |depth: usize, text: String| {
        yaml.push_str(&"  ".repeat(depth));
        yaml.push_str(&text);
        yaml.push('\n');
    };
    line(1, format!("name: {}", quoted(name(arguments))));
    if let Some(namespace) = &arguments.namespace {
        line(1, format!("namespace: {}", quoted(namespace)));
    }
    line(0, "spec:".to_owned());
    if let Some(display_name) = &arguments.display_name {
        line(1, format!("displayName: {}", quoted(display_name)));
    }
    line(1, "source:".to_owned());
    match arguments.source {
        SourceKind::CloudApps => {
            line(2, "cloudApps:".to_owned());
            line(3, format!("url: {}", quoted(arguments.url.as_deref().unwrap_or(UNKNOWN_URL))));
            line(2, "auth:".to_owned());
            line(3, format!("tokenSecretRef: {{name: {}}}", quoted(&arguments.secret_name)));
        }
        SourceKind::Graph => {
            for (depth, text) in arguments.graph.lines(&arguments.secret_name) {
                line(depth, text);
            }
        }
    }
    if let Some(proxy) = proxy {
        line(2, "proxy:".to_owned());
        line(3, format!("url: {}", quoted(proxy)));
        if !no_proxy.is_empty() {
            let entries: Vec<String> = no_proxy.iter().map(|entry| quoted(entry)).collect();
            line(3, format!("noProxy: [{}]", entries.join(", ")));
        }
    }
    // Only what was asked for: the rest follows the receiver.
    let format = [
        arguments.format.as_ref().map(|kind| format!("type: {}", quoted(kind))),
        arguments.time_format.as_ref().map(|time| format!("timeFormat: {}", quoted(time))),
        arguments.no_pri.then(|| "includePri: false".to_owned()),
        arguments.no_system_name.then(|| "includeSystemName: false".to_owned()),
    ];
    let format: Vec<String> = format.into_iter().flatten().collect();
    if !format.is_empty() {
        line(1, "format:".to_owned());
    }
    for field in format {
        line(2, field);
    }
    line(1, "syslog:".to_owned());
    line(2, format!("host: {}", quoted(arguments.syslog_host.as_deref().unwrap_or(UNKNOWN_HOST))));
    if let Some(port) = arguments.syslog_port {
        line(2, format!("port: {port}"));
    }
    line(2, format!("protocol: {}", quoted(&arguments.protocol)));
    if let Some(receiver) = &arguments.receiver {
        line(2, format!("receiver: {}", quoted(receiver)));
    }
    line(1, "eventTypes:".to_owned());
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let services = list(arguments.services.iter().map(ToString::to_string).collect());
    let severities = list(arguments.severities.iter().map(|text| quoted(text)).collect());
    line(2, "alerts:".to_owned());
    line(3, format!("enabled: {}", !arguments.no_alerts));
    line(3, format!("filter: {{severities: {severities}, services: {services}}}"));
    line(2, "activities:".to_owned());
    line(3, format!("enabled: {}", !arguments.no_activities));
    line(3, format!("filter: {{services: {services}}}"));
    yaml
}

fn name(arguments: &InitArguments) -> &str {
    arguments.name.as_deref().unwrap_or("siem-agent")
}

fn secret(arguments: &InitArguments, token_file: &str) -> String {
    if arguments.source == SourceKind::Graph {
        let permissions = [
            (arguments.no_alerts, "SecurityAlert.Read.All"),
            (arguments.no_activities, "ThreatHunting.Read.All"),
        ];
        let needed =
            permissions.into_iter().filter_map(|(without, name)| (!without).then_some(name));
        return arguments.graph.words(&Whose {
            namespace: arguments.namespace.as_deref(),
            name: name(arguments),
            secret: &arguments.secret_name,
            permissions: &needed.collect::<Vec<_>>(),
        });
    }
    let namespace = arguments
        .namespace
        .as_ref()
        .map_or_else(String::new, |name| format!(" --namespace {name}"));
    format!(
        "# The Secret that it names goes into the same namespace. Put an API token alone into a file (in the portal:\n\
         # Settings, Cloud Apps, API tokens), and:\n\
         #   kubectl create secret generic {}{namespace} --from-file=token={token_file}\n",
        arguments.secret_name
    )
}

fn tell(arguments: &InitArguments, old: &OldAgent) {
    let is_graph = arguments.source == SourceKind::Graph;
    if is_graph {
        arguments.graph.unknown().into_iter().for_each(complain);
    } else if arguments.url.is_none() {
        complain(
            "note: the old line does not name the portal; replace CHANGE-ME in spec.source.cloudApps.url, or give --url",
        );
    }
    if arguments.syslog_host.is_none() {
        complain(
            "note: the old line does not name the SIEM, the portal does; replace CHANGE-ME in spec.syslog.host, or give --syslog-host",
        );
    }
    match &old.token {
        _ if is_graph => complain(
            "note: the old line's token is shown nowhere: it is the portal's, and Microsoft Graph does not take it",
        ),
        Some(_) if arguments.token_out.is_none() => complain(
            "note: the old line's token is shown nowhere; --token-out FILE keeps it. The portal withdraws tokens of SIEM agents: better make an API token",
        ),
        Some(_) => {}
        None if old.has_token_elsewhere => complain(
            "note: the old line's token is what a variable, a command or a template gives, and the text does not say what that is: store an API token in the Secret yourself",
        ),
        None => complain("note: the old line holds no token"),
    }
    for note in &old.notes {
        complain(&format!("note: {note}"));
    }
    if old.has_logs_directory {
        complain("note: --logsDirectory has no counterpart: logs go to the container's output");
    }
    if old.n_unknown > 0 {
        complain(&format!(
            "note: {} of the words after the jar are left out: they come from a variable, or the old agent has no such option",
            old.n_unknown
        ));
    }
}

/// `ADDRESS[:PORT]`, as the old agent took it.
fn proxy(address: &str) -> Result<String, String> {
    proxy_address::url(address).ok_or_else(|| {
        "--proxy must be ADDRESS[:PORT]; credentials go into a Secret (spec.source.proxy.credentialsSecretRef). \
         With --from-jar, --proxy here takes the place of the old line's"
            .to_owned()
    })
}

fn keep(path: &Path, token: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(token.as_bytes())
}
