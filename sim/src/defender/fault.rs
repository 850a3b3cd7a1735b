//! Faults of the simulated portal: what goes wrong, at which requests, and how it is written on a command line.

use std::str::FromStr;

use serde_json::Value;
use siem_agent_crds::report::Stream;

/// What the wrong data centre answers to a good token.
const WRONG_DATA_CENTRE: &str = "Invalid JSON Web Key Set";

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// 429, with this `Retry-After`: seconds, or `date+SECONDS` for a date so far ahead.
    Throttle(Option<String>),
    /// 429 without `Retry-After`, whose words say so many seconds.
    ThrottleInWords(String),
    /// This status.
    Status(u16),
    /// This status with this body.
    Refusal(u16, String),
    /// No answer for this many seconds, then the usual one.
    Hang(u64),
    /// The connection ends after this many bytes of the body, of which more were promised.
    Cut(usize),
    /// The body ends after this many bytes, and HTTP is content with it.
    Short(usize),
    /// The body is no JSON.
    BrokenJson,
    /// A login page.
    Html,
    /// The right body under this content type.
    ContentType(String),
    /// 200 without a body.
    Empty,
    /// A byte-order mark before the right body.
    Mark,
    /// An empty page that promises more and gives no cursor.
    More,
    /// At the identity provider: the grant with these fields in place of its own; those that are null are left out.
    Grant(Value),
    /// 401 with this detail.
    Unauthorized(String),
    /// 403 with this detail.
    Forbidden(String),
    /// 504 with the page of a gateway.
    GatewayPage,
    /// 400, because the result is too large, whatever its size.
    ResultTooLarge,
}

/// Whom a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A stream of records.
    Records(Stream),
    /// Alerts of Microsoft Graph.
    GraphAlerts,
    /// Hunting queries of Microsoft Graph.
    GraphHunting,
    /// The identity provider.
    Token,
}

/// Which pages a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// The first of a walk.
    First,
    /// Any that follows one with `hasNext`.
    Continued,
}

/// A fault and the requests that it meets.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For so many requests; `None` for ever.
    pub n_requests: Option<usize>,
    /// After so many requests that it would have met.
    pub after: usize,
    /// At this endpoint only.
    pub endpoint: Option<Endpoint>,
    /// On these pages only.
    pub pages: Option<Pages>,
    /// How often a request that it could meet is met, 0 to 1.
    pub probability: f64,
}

impl Fault {
    /// Meets the next request but those of the identity provider.
    pub fn once(kind: FaultKind) -> Self {
        Self { kind, n_requests: Some(1), after: 0, endpoint: None, pages: None, probability: 1.0 }
    }

    /// Whether it meets a request. `chance` lies in `0.0..1.0`. Counts what it has met.
    pub(super) fn meets(&mut self, endpoint: Endpoint, continued: bool, chance: f64) -> bool {
        let here = match self.endpoint {
            Some(of) => of == endpoint,
            None => endpoint != Endpoint::Token,
        };
        let page = self.pages.is_none_or(|pages| (pages == Pages::Continued) == continued);
        if !here || !page || self.n_requests == Some(0) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        if chance >= self.probability {
            return false;
        }
        if let Some(n_requests) = &mut self.n_requests {
            *n_requests -= 1;
        }
        true
    }
}

impl FromStr for Fault {
    type Err = String;

    /// `KIND[:ARGUMENT][xCOUNT][@CONDITION,…]`.
    ///
    /// Kinds: `429`, `429:SECONDS`, `429:date+SECONDS`, `429-in-words:SECONDS`, a status, `refusal:STATUS:BODY`,
    /// `hang:SECONDS`, `cut:BYTES`, `short:BYTES`, `broken`, `html`, `type:CONTENT-TYPE`, `empty`, `mark`, `more`,
    /// `401[:TEXT]`, `403[:TEXT]`, `jwks`, `grant:JSON`, `504-html`, `too-large`. `COUNT` is a number or `*`.
    /// Conditions: `stream=alerts|activities|graph-alerts|graph-hunting|token`, `page=first|continued`, `after=N`, `p=0.1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (what, conditions) = match text.rsplit_once('@') {
            Some((what, conditions)) if conditions.contains('=') => (what, conditions),
            Some(_) | None => (text, ""),
        };
        let (what, n_requests) = match what.rsplit_once('x') {
            Some((what, "*")) => (what, None),
            Some((what, count))
                if count.bytes().all(|byte| byte.is_ascii_digit()) && !count.is_empty() =>
            {
                (what, Some(count.parse().map_err(|_long| format!("bad count in `{text}`"))?))
            }
            Some(_) | None => (what, Some(1)),
        };
        let mut fault = Self { n_requests, ..Self::once(kind(what)?) };
        for condition in conditions.split(',').filter(|condition| !condition.is_empty()) {
            fault.condition(condition)?;
        }
        Ok(fault)
    }
}

impl Fault {
    fn condition(&mut self, condition: &str) -> Result<(), String> {
        let wrong = || format!("unknown condition `{condition}` of a fault");
        match condition.split_once('=').ok_or_else(wrong)? {
            ("stream", "alerts") => self.endpoint = Some(Endpoint::Records(Stream::Alerts)),
            ("stream", "activities") => self.endpoint = Some(Endpoint::Records(Stream::Activities)),
            ("stream", "graph-alerts") => self.endpoint = Some(Endpoint::GraphAlerts),
            ("stream", "graph-hunting") => self.endpoint = Some(Endpoint::GraphHunting),
            ("stream", "token") => self.endpoint = Some(Endpoint::Token),
            ("page", "first") => self.pages = Some(Pages::First),
            ("page", "continued") => self.pages = Some(Pages::Continued),
            ("after", number) => self.after = number.parse().map_err(|_digits| wrong())?,
            ("p", share) => {
                let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                self.probability = share.ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

fn kind(text: &str) -> Result<FaultKind, String> {
    let (name, argument) =
        text.split_once(':').map_or((text, None), |(name, argument)| (name, Some(argument)));
    let number = |default: u32| match argument {
        None => Ok(default),
        Some(argument) => {
            argument.parse::<u32>().map_err(|_digits| format!("`{text}` needs a number"))
        }
    };
    let words = |default: &str| argument.unwrap_or(default).to_owned();
    Ok(match name {
        "429" => FaultKind::Throttle(argument.map(str::to_owned)),
        "429-in-words" => FaultKind::ThrottleInWords(words("41")),
        "refusal" => {
            let (status, body) = argument.and_then(|text| text.split_once(':')).unwrap_or_default();
            let status = status.parse().ok().filter(|status| (400..=599).contains(status));
            let status = status.ok_or_else(|| format!("`{text}` needs a status and a body"))?;
            FaultKind::Refusal(status, body.to_owned())
        }
        "mark" => FaultKind::Mark,
        "more" => FaultKind::More,
        "grant" => {
            let fields = serde_json::from_str(&words("{}"));
            FaultKind::Grant(fields.map_err(|_json| format!("`{text}` needs a JSON object"))?)
        }
        "401" => FaultKind::Unauthorized(words("Invalid token")),
        "403" => FaultKind::Forbidden(words(super::OWNER_NOT_PERMITTED)),
        "jwks" => FaultKind::Unauthorized(WRONG_DATA_CENTRE.to_owned()),
        "504-html" => FaultKind::GatewayPage,
        "too-large" => FaultKind::ResultTooLarge,
        "hang" => FaultKind::Hang(number(60)?.into()),
        "cut" => FaultKind::Cut(number(500)? as usize),
        "short" => FaultKind::Short(number(500)? as usize),
        "broken" => FaultKind::BrokenJson,
        "html" => FaultKind::Html,
        "type" => FaultKind::ContentType(words("text/plain")),
        "empty" => FaultKind::Empty,
        status => match status.parse() {
            Ok(status @ 400..=599) => FaultKind::Status(status),
            Ok(_) | Err(_) => return Err(format!("unknown fault `{text}`")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_in_one_word() {
        let fault: Fault =
            "429:date+3x2@stream=alerts,page=continued,after=1,p=0.5".parse().unwrap();
        assert_eq!(fault.kind, FaultKind::Throttle(Some("date+3".to_owned())));
        assert_eq!((fault.n_requests, fault.after), (Some(2), 1));
        assert_eq!(fault.endpoint, Some(Endpoint::Records(Stream::Alerts)));
        assert_eq!(fault.pages, Some(Pages::Continued));
        assert_eq!("jwks".parse::<Fault>().unwrap().n_requests, Some(1));
        let graph: Fault = "504-htmlx*@stream=graph-hunting".parse().unwrap();
        assert_eq!(
            (graph.kind, graph.endpoint),
            (FaultKind::GatewayPage, Some(Endpoint::GraphHunting))
        );
        assert_eq!("500x*".parse::<Fault>().unwrap().n_requests, None);
        let refusal: Fault = "refusal:403:{\"error\": \"no x\"}x2".parse().unwrap();
        assert_eq!(refusal.kind, FaultKind::Refusal(403, "{\"error\": \"no x\"}".to_owned()));
        let grant: Fault = "grant:{\"expires_in\": \"60\"}@stream=token".parse().unwrap();
        assert_eq!(grant.kind, FaultKind::Grant(serde_json::json!({"expires_in": "60"})));
        for wrong in [
            "refusal:200:x",
            "refusal:x",
            "grant:x",
            "",
            "200",
            "hang:soon",
            "500@p=2",
            "500@stream=both",
            "nonsense",
        ] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fault_meets_what_its_conditions_name() {
        let mut fault: Fault = "500x1@page=continued,after=1".parse().unwrap();
        let alerts = Endpoint::Records(Stream::Alerts);
        assert!(!fault.meets(alerts, false, 0.0), "a first page");
        assert!(!fault.meets(alerts, true, 0.0), "the one before it begins");
        assert!(!fault.meets(Endpoint::Token, true, 0.0), "no page at all");
        assert!(fault.meets(alerts, true, 0.0));
        assert!(!fault.meets(alerts, true, 0.0), "it is used up");
    }
}
