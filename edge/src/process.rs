//! `process_*`, under the names that every Prometheus client gives them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// `process_*`, as every Prometheus client has them.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    #[expect(clippy::cast_precision_loss, reason = "sizes and times have fewer than 52 bits")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        let Ok(stat) = process.stat() else { return Ok(()) };
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        let kind = prometheus_client::metrics::MetricType::Counter;
        let metric = encoder.encode_descriptor(
            "process_cpu",
            "CPU time used",
            Some(&Unit::Seconds),
            kind,
        )?;
        ConstCounter::new(cpu).encode(metric)?;
        let mut gauge = |name: &str, help: &str, value: f64| {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, kind)?)
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            (stat.rss * procfs::page_size()) as f64,
        )?;
        gauge("process_virtual_memory_bytes", "Virtual memory", stat.vsize as f64)?;
        if let Ok(n_open) = process.fd_count() {
            gauge("process_open_fds", "Open file descriptors", n_open as f64)?;
        }
        if let Ok(limits) = process.limits()
            && let procfs::process::LimitValue::Value(limit) = limits.max_open_files.soft_limit
        {
            gauge("process_max_fds", "Most file descriptors", limit as f64)?;
        }
        if let Ok(boot) = procfs::boot_time_secs() {
            let began = boot as f64 + stat.starttime as f64 / ticks;
            gauge("process_start_time_seconds", "When the process started, Unix time", began)?;
        }
        Ok(())
    }
}
