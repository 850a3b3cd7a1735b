//! Probes: when to ask, and what many answers amount to.
//!
//! As the kubelet does, but for one thing: a probe that has not passed yet is asked often, so that tests are quick.
//! Failures still count only once a period.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often one is asked that has not passed.
const EAGER: Duration = Duration::from_millis(200);

/// One probe of a running container.
#[derive(Debug)]
pub(super) struct Prober {
    url: String,
    headers: Vec<(String, String)>,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    n_to_pass: i32,
    n_to_fail: i32,
    asked: Option<Instant>,
    counted: Option<Instant>,
    pending: Option<JoinHandle<Result<(), String>>>,
    n_passed: i32,
    n_failed: i32,
    /// Whether it stands as passed.
    pub(super) passed: bool,
    /// What the last failure was.
    pub(super) failure: String,
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(pending) = &self.pending {
            pending.abort();
        }
    }
}

impl Prober {
    /// For a container on this address; `Err` for kinds that the stand-in does not know.
    pub(super) fn new(
        probe: &Probe,
        container: &Container,
        address: IpAddr,
    ) -> Result<Self, String> {
        let get = probe.http_get.as_ref().ok_or("the stand-in knows only httpGet probes")?;
        let port = match &get.port {
            IntOrString::Int(port) => *port,
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| format!("no port is named {name}"))?,
        };
        let bracketed = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let host = get.host.clone().unwrap_or(bracketed);
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("the stand-in probes by HTTP only".to_owned());
        }
        let path = get.path.as_deref().unwrap_or("/");
        let seconds = |seconds: Option<i32>, default: u64| {
            Duration::from_secs(
                seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(default),
            )
        };
        let headers = get.http_headers.iter().flatten();
        Ok(Self {
            url: format!("http://{host}:{port}/{}", path.trim_start_matches('/')),
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            n_to_pass: probe.success_threshold.unwrap_or(1),
            n_to_fail: probe.failure_threshold.unwrap_or(3),
            asked: None,
            counted: None,
            pending: None,
            n_passed: 0,
            n_failed: 0,
            passed: false,
            failure: String::new(),
        })
    }

    /// One look; `true` when it has failed as often as it may.
    pub(super) async fn look(
        &mut self,
        http: &reqwest::Client,
        started: Instant,
        now: Instant,
    ) -> bool {
        if let Some(pending) = self.pending.take_if(|pending| pending.is_finished()) {
            match pending.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(()) => {
                    self.n_failed = 0;
                    self.counted = None;
                    self.n_passed += 1;
                    self.passed |= self.n_passed >= self.n_to_pass;
                }
                Err(failure) => {
                    self.n_passed = 0;
                    self.failure = failure;
                    if self.counted.is_none_or(|at| now.duration_since(at) >= self.period) {
                        self.counted = Some(now);
                        self.n_failed += 1;
                    }
                    if self.n_failed >= self.n_to_fail {
                        self.passed = false;
                        return true;
                    }
                }
            }
        }
        let every = if self.passed { self.period } else { self.period.min(EAGER) };
        let is_due = now.duration_since(started) >= self.delay
            && self.asked.is_none_or(|at| now.duration_since(at) >= every);
        if is_due && self.pending.is_none() {
            self.asked = Some(now);
            let mut request = http.get(&self.url).timeout(self.timeout);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            self.pending = Some(tokio::spawn(async move {
                let answer = request.send().await.map_err(|error| error.to_string())?;
                let code = answer.status().as_u16();
                if (200..400).contains(&code) {
                    Ok(())
                } else {
                    Err(format!("HTTP probe failed with statuscode: {code}"))
                }
            }));
        }
        false
    }
}
