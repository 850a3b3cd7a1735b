//! On whose side the settings of a connection stand. Pure.

/// On whose side the settings of a connection stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `spec.source`.
    Source,
    /// `spec.syslog.tls`.
    Syslog,
}

impl Side {
    /// The field that says whom to trust.
    pub fn bundle(self) -> &'static str {
        match self {
            Self::Source => "spec.source.caBundleRef",
            Self::Syslog => "spec.syslog.tls.caBundleRef",
        }
    }
}
