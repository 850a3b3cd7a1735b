//! What `docs/receivers.md` says of each receiver beside its settings: how it is set up, and how to see that it works. Pure.

use crate::siem_agent::Receiver;

/// How a receiver is set up.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The receiver's own configuration, in Markdown.
    pub setup: &'static str,
    /// `spec.syslog.port`, where its configuration here listens on one of its own.
    pub port: Option<u16>,
    /// Further lines of the SiemAgent's spec, where the receiver needs them.
    pub spec: &'static str,
    /// How to see that it works, in Markdown.
    pub check: &'static str,
}

impl Receiver {
    /// How it is set up.
    pub fn recipe(self) -> Recipe {
        match self {
            Self::Rsyslog => Recipe {
                port: None,
                setup: "A file in `/etc/rsyslog.d`, then `systemctl restart rsyslog`:

```
module(load=\"imtcp\")
template(name=\"whole\" type=\"string\" string=\"%rawmsg%\\n\")
ruleset(name=\"siem\") { action(type=\"omfile\" file=\"/var/log/siem-agent.log\" template=\"whole\") }
input(type=\"imtcp\" port=\"514\" ruleset=\"siem\")
```

rsyslog cuts a message at 8096 bytes and takes the rest for another one, so the preset stays below. To have longer ones whole, put \
`global(maxMessageSize=\"64k\")` first in `/etc/rsyslog.conf` and set `maxMessageBytes: 65000`.",
                spec: "",
                check: "`tail -f /var/log/siem-agent.log` shows lines with `CEF:0|MCAS|SIEM_Agent|`.",
            },
            Self::SyslogNg => Recipe {
                port: None,
                setup: "A file in `/etc/syslog-ng/conf.d`, then `systemctl restart syslog-ng`:

```
source s_siem { network(ip(\"0.0.0.0\") port(514) transport(\"tcp\") flags(no-parse)); };
destination d_siem { file(\"/var/log/siem-agent.log\" template(\"${MESSAGE}\\n\")); };
log { source(s_siem); destination(d_siem); };
```

`network()` reads lines. A `syslog()` source counts octets and wants the standard's header: set `framing: OctetCounting` and \
`header: RFC5424` for it.",
                spec: "",
                check: "`tail -f /var/log/siem-agent.log` shows lines with `CEF:0|MCAS|SIEM_Agent|`.",
            },
            Self::SC4S => Recipe {
                port: None,
                setup: "Nothing: SC4S knows the events by their CEF header, on its default port. They get the sourcetype `cef`, the \
source `microsoft:cas` and, unless `splunk_metadata.csv` says otherwise for the key `MCAS_SIEM_Agent`, the index `main`.

Ports 514 and 6514 read lines. Ports 601 and 5425 (TLS) count octets: set `framing: OctetCounting` and `header: RFC5424` for them.",
                spec: "",
                check: "In Splunk, `index=main sourcetype=cef source=microsoft:cas` finds them.",
            },
            Self::Sentinel => Recipe {
                port: None,
                setup: "The forwarder's machine runs rsyslog or syslog-ng with the Azure Monitor Agent; its installation script opens TCP \
514. In the data collection rule of the connector \"Common Event Format (CEF) via AMA\", collect a facility that nothing else uses, or \
rows come into `Syslog` and `CommonSecurityLog` both. The default priority 109 is facility 13, log audit; another facility is \
`priority: FACILITY*8+5`.",
                spec: "",
                check: "In the workspace, `CommonSecurityLog | where DeviceVendor == \"MCAS\"` finds them.",
            },
            Self::QRadar => Recipe {
                port: None,
                setup: "A log source for CEF with the protocol Syslog (TCP 514), or TLS Syslog (port 6514, one log \
source a port). Its *Log Source Identifier* is the host in the header: `format.systemName`, or the SiemAgent's name. Payloads longer \
than its TCP limit are cut, 4096 bytes unless *Max TCP Syslog Payload Length* was raised; `maxMessageBytes` may follow it.",
                spec: "  format: {systemName: soc}\n",
                check: "In Log Activity, the log source has events with the name of the activity or alert.",
            },
            Self::ArcSight => Recipe {
                port: None,
                setup: "A SmartConnector \"Syslog Daemon\" on TCP 514, or a Logger receiver \"CEF TCP\" (port 515). `type: ArcSight` is the \
option that the portal's wizard had for it: no priority before the time. `dialect: Strict` keeps to the lengths of the CEF standard: an `externalId` longer \
than 40 characters is hashed.",
                spec: "  format: {type: ArcSight}\n",
                check: "In Logger, `deviceVendor = \"MCAS\"` finds them.",
            },
            Self::Exabeam => Recipe {
                port: None,
                setup: "Its syslog collector. Its parsers look for `CEF:`, `|MCAS|SIEM_Agent|`, an `rt` of 13 digits and \
the names of the vendor's agent, with the empty pairs that it wrote: `dialect: Strict` is not for them.",
                spec: "",
                check: "In Search, events with `|MCAS|SIEM_Agent|` in their raw message have parsed fields.",
            },
            Self::Elastic => Recipe {
                port: None,
                setup: "The integration \"Common Event Format (CEF)\" with its TCP input, or in Filebeat:

```
filebeat.inputs:
  - type: tcp
    host: \"0.0.0.0:9003\"
    max_message_size: 20MiB
processors:
  - rename: {fields: [{from: message, to: event.original}]}
  - decode_cef: {field: event.original}
```

The vendor's agent wrote empty pairs (`dvc= `), which the processor takes for bad addresses and numbers; so the preset is \
`dialect: Strict`, which leaves them out. With `ignore_empty_values: true` in the processor, `dialect: Legacy` works as well.",
                spec: "",
                check: "In Discover, `cef.device.vendor: MCAS` finds them, and `error.message` is empty.",
            },
            Self::Graylog => Recipe {
                port: Some(5555),
                setup: "An input \"CEF TCP\", on port 5555. The input takes `dvc`, the user's address, for the source where it is \
not empty: a pipeline rule can set `source` to the header's host.",
                spec: "",
                check: "The search `device_vendor:MCAS` finds them.",
            },
            Self::GoogleSecOps => Recipe {
                port: Some(10514),
                setup: "A collector in the forwarder's configuration:

```
collectors:
  - syslog:
      common:
        enabled: true
        data_type: MICROSOFT_CASB
        batch_n_seconds: 10
        batch_n_bytes: 1048576
      tcp_address: 0.0.0.0:10514
      connection_timeout_sec: 600
```",
                spec: "",
                check: "A raw log search for `|MCAS|SIEM_Agent|` finds them, with the log type MICROSOFT_CASB.",
            },
            Self::Logstash => Recipe {
                port: Some(5514),
                setup: "A pipeline:

```
input { tcp { port => 5514 codec => cef { delimiter => \"\\n\" } } }
output { stdout { codec => rubydebug } }
```",
                spec: "",
                check: "Events have `deviceVendor` MCAS and no tag `_cefparsefailure`.",
            },
            Self::LogScale => Recipe {
                port: None,
                setup: "A source of the LogScale Collector:

```
sources:
  siem_agent:
    type: syslog
    mode: tcp
    port: 514
    sink: logscale
```

With TLS it is `type: syslog_tls` with `certificateFile` and `keyFile`, port 6514. It cuts at 2048 bytes unless `maxEventSize` was raised, at most to 1048576; `maxMessageBytes` \
may follow it. With `strict: true` it closes the connection where an event begins neither with `<` nor with a length.",
                spec: "",
                check: "The search `CEF:0|MCAS|SIEM_Agent` in the repository finds them.",
            },
        }
    }
}
