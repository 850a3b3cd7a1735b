//! Who we are to the API: a legacy token as it stands in its file, or an access token from Entra ID.
//!
//! Legacy: `Authorization: Token <value>`. Entra: the client credentials grant (RFC 6749, section 4.4) at
//! `<authority>/<tenant>/oauth2/v2.0/token` for the scope of the API, with the client secret or with a token of somebody
//! whom the application trusts (`client_assertion`, RFC 7523, section 2.2); the access token is kept
//! until a little before it expires, and thrown away when the API refuses it: one fresh one is tried then, and only when
//! that is refused too is it the application that is not let in. When a secret may be tried is not decided here.

use std::sync::Mutex;
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use siem_agent_edge::clock;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{self, TokenAnswer, TokenRefusal};
use super::client::{Client, Failed, READ_TIMEOUT, Sent};
use super::connect::Challenge;
use super::mend::{self, Mend};
use super::refusal;
use super::settings::{Auth as Settings, Proof};
use crate::secret::{self, Secret};

/// RFC 7523, section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// An access token is renewed when this share of its life is over…
const RENEW_AFTER: f64 = 0.8;
/// …but is used this long at least, so that a server that grants no time at all is not asked before each request.
const LEAST_LIFE: Duration = Duration::from_secs(2);
/// …and not longer than this, whatever is promised; Entra grants 24 hours at most.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Where the answer does not say how long it lives (RFC 6749 allows that), it is used until it is refused, and at most
/// this long.
const UNSPOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Why the identity provider gave no access token.
#[derive(Debug)]
pub(in crate::source) enum Error {
    /// It cannot be reached.
    Request(Failed),
    /// A proxy on the way asks for credentials.
    Challenged(Challenge),
    /// It wants fewer requests.
    Throttled {
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// It refuses the application.
    Refused {
        /// Its words.
        detail: String,
        /// What has to be mended.
        mend: Mend,
    },
    /// It answered something else.
    Status {
        /// HTTP status.
        code: u16,
        /// Its words.
        detail: String,
    },
    /// Its answer holds no token that can be used.
    Answer(&'static str),
}

/// Makes the `Authorization` header.
#[derive(Debug)]
pub(in crate::source) struct Auth {
    settings: Settings,
    /// What an access token is asked for.
    scope: String,
    state: Mutex<State>,
    /// Both streams may want an access token at once; one request for it is enough.
    renewing: tokio::sync::Mutex<()>,
}

/// What a request was authorized with.
#[derive(Debug, Clone)]
pub(in crate::source) struct Authorization {
    /// The header's value.
    pub(in crate::source) header: HeaderValue,
    access: Option<Secret>,
}

impl Authorization {
    fn secret(&self) -> Option<&str> {
        Some(self.header.to_str().ok()?.split_once(' ')?.1)
    }
}

#[derive(Debug, Default)]
struct State {
    used: Option<Secret>,
    access: Option<Access>,
    /// The access token that was last refused, and whether another one was worth a try.
    thrown_away: Option<(Secret, bool)>,
    /// An access token was renewed because the last one was refused, and none was accepted since.
    in_vain: bool,
}

#[derive(Debug)]
struct Access {
    token: Secret,
    renew_at: Instant,
}

impl Auth {
    pub(in crate::source) fn new(settings: Settings, scope: String) -> Self {
        Self { settings, scope, state: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    /// The secret as it lies in its file now.
    pub(in crate::source) fn read(&self) -> Result<Secret, secret::Error> {
        self.settings.file().read()
    }

    /// The API took it.
    pub(in crate::source) fn accepted(&self, authorization: &Authorization) {
        if authorization.access.is_some() {
            self.lock().in_vain = false;
        }
    }

    /// The API took it and does not allow what was asked: its permissions are those of the time at which it was made, so the
    /// next request has another one.
    pub(in crate::source) fn forbidden(&self, authorization: &Authorization) {
        let sent = authorization.access.as_ref();
        self.lock().access.take_if(|access| Some(&access.token) == sent);
    }

    /// The API refused it. Says whether a fresh access token may help; the refused one is thrown away.
    pub(in crate::source) fn refused(&self, authorization: &Authorization) -> bool {
        let mut state = self.lock();
        let Some(token) = &authorization.access else { return false };
        if let Some((_, renewable)) = state.thrown_away.as_ref().filter(|(gone, _)| gone == token) {
            // The other stream was refused with the same one; or it is what was renewed to, and so will be the next.
            let is_another = state.access.as_ref().is_none_or(|access| access.token != *token);
            return *renewable && is_another;
        }
        if state.access.as_ref().is_some_and(|access| access.token != *token) {
            return true;
        }
        state.access = None;
        let renewable = !state.in_vain;
        state.in_vain = true;
        state.thrown_away = Some((token.clone(), renewable));
        renewable
    }

    /// What to authorize a request with that is sent with this secret.
    pub(in crate::source) async fn authorization(
        &self,
        secret: Secret,
        client: &Client,
    ) -> Result<Authorization, Error> {
        let (text, access) = match &self.settings {
            Settings::Token(_) => {
                self.lock().used = Some(secret.clone());
                (Zeroizing::new(format!("Token {}", secret.expose())), None)
            }
            Settings::ClientCredentials { .. } => {
                let _alone = self.renewing.lock().await;
                let access = match self.cached(&secret) {
                    Some(access) => access,
                    None => self.renew(client, secret.clone()).await?,
                };
                (Zeroizing::new(format!("Bearer {}", access.expose())), Some(access))
            }
        };
        // Neither is taken in with anything that a header cannot carry.
        let mut header = HeaderValue::from_str(&text)
            .map_err(|_unprintable| Error::Answer("holds no access token"))?;
        header.set_sensitive(true);
        Ok(Authorization { header, access })
    }

    /// Whether an application authenticates, and no token of the portal.
    pub(in crate::source) fn is_application(&self) -> bool {
        matches!(self.settings, Settings::ClientCredentials { .. })
    }

    /// A server's text as one short line, without any secret of ours; also without the one that was sent to it, which may
    /// not be in use any more. See [`refusal::shown`].
    pub(in crate::source) fn shown(
        &self,
        text: &str,
        harmless: &str,
        sent: Option<&Authorization>,
    ) -> String {
        let state = self.lock();
        let known = state.used.iter().chain(state.access.iter().map(|access| &access.token));
        let known = known.map(Secret::expose).chain(sent.and_then(Authorization::secret));
        refusal::shown(text, harmless, known)
    }

    /// Every secret that a server may have been sent, and what lies in the file now.
    pub(in crate::source) fn secrets(&self) -> Vec<Secret> {
        let stored = self.settings.file().read().ok();
        let state = self.lock();
        let access = state.access.iter().map(|access| access.token.clone());
        let thrown_away = state.thrown_away.iter().map(|(token, _)| token.clone());
        state.used.iter().cloned().chain(access).chain(thrown_away).chain(stored).collect()
    }

    fn cached(&self, secret: &Secret) -> Option<Secret> {
        let state = self.lock();
        let access = state.access.as_ref()?;
        (state.used.as_ref() == Some(secret) && Instant::now() < access.renew_at)
            .then(|| access.token.clone())
    }

    async fn renew(&self, client: &Client, secret: Secret) -> Result<Secret, Error> {
        let Settings::ClientCredentials { tenant_id, client_id, authority, proof } = &self.settings
        else {
            return Err(Error::Answer("is not asked for"));
        };
        let form = grant_request(client_id, &self.scope, proof, &secret);
        let url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        let asked = Instant::now();
        let kind = "application/x-www-form-urlencoded";
        let sent = Sent::Post(kind, form.into_bytes());
        let mut answer =
            client.send(&url, sent, None, None, READ_TIMEOUT).await.map_err(Error::Request)?;
        let body = answer.beginning().await;
        let body = answer::without_mark(&body);
        self.lock().used = Some(secret.clone());
        if answer.status.is_success() {
            let granted = granted(body)?;
            let life = match granted.life() {
                Some(life) => life.min(LONGEST_LIFE).mul_f64(RENEW_AFTER).max(LEAST_LIFE),
                None => UNSPOKEN_LIFE,
            };
            let token = Secret::of(granted.access_token);
            self.lock().access = Some(Access { token: token.clone(), renew_at: asked + life });
            return Ok(token);
        }
        if let Some(challenge) = answer.challenge.take() {
            return Err(Error::Challenged(challenge));
        }
        let code = answer.status.as_u16();
        let refusal: Option<TokenRefusal> = serde_json::from_slice(body).ok();
        let detail = match &refusal {
            Some(refusal) => self.shown(&refusal.text(), &refusal.harmless(), None),
            None => self.shown(&refusal::words(body, answer.status), "", None),
        };
        Err(match (code, refusal) {
            (429, _) => {
                let retry_after = answer.header(RETRY_AFTER);
                let retry_after = refusal::wait(retry_after, body, clock::now());
                Error::Throttled { retry_after }
            }
            // Whoever refuses otherwise than OAuth demands is no identity provider, but something before it.
            (400 | 401 | 403, Some(refusal)) if !mend::is_passing(&refusal) => {
                let mend =
                    Mend::of(&refusal, secret.expose(), matches!(proof, Proof::Assertion(_)));
                Error::Refused { detail, mend }
            }
            _ => Error::Status { code, detail },
        })
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the lock is held")
    }
}

/// The form that asks for an access token.
fn grant_request(client_id: &str, scope: &str, proof: &Proof, secret: &Secret) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials")
        .append_pair("client_id", client_id)
        .append_pair("scope", scope);
    match proof {
        Proof::Secret(_) => form.append_pair("client_secret", secret.expose()),
        Proof::Assertion(_) => form
            .append_pair("client_assertion_type", JWT_BEARER)
            .append_pair("client_assertion", secret.expose()),
    };
    form.finish()
}

/// The access token of an answer, if it is one that can be used.
fn granted(body: &[u8]) -> Result<TokenAnswer, Error> {
    let granted: TokenAnswer =
        serde_json::from_slice(body).map_err(|_shape| Error::Answer("holds no access token"))?;
    let is_bearer = |kind: &str| kind.trim().eq_ignore_ascii_case("Bearer");
    if !granted.token_type.as_deref().is_none_or(is_bearer) {
        return Err(Error::Answer("holds an access token of another type than Bearer"));
    }
    if !secret::is_token(&granted.access_token) {
        return Err(Error::Answer(
            "holds an access token that is empty or that no HTTP header can carry",
        ));
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretFile;

    fn bearer(token: &str) -> Authorization {
        let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        Authorization { header, access: Some(Secret::of(token.to_owned())) }
    }

    fn application() -> Auth {
        Auth::new(
            Settings::ClientCredentials {
                tenant_id: "t".to_owned(),
                client_id: "c".to_owned(),
                proof: Proof::Secret(SecretFile::new("nowhere".into(), secret::Kind::ClientSecret)),
                authority: "https://login.example".to_owned(),
            },
            "scope".to_owned(),
        )
    }

    fn renewed_to(auth: &Auth, token: &str) {
        let token = Secret::of(token.to_owned());
        auth.lock().access = Some(Access { token, renew_at: Instant::now() });
    }

    #[test]
    fn a_renewal_that_brings_the_same_token_is_in_vain() {
        let auth = application();
        renewed_to(&auth, "first");
        assert!(auth.refused(&bearer("first")), "a fresh one may help");
        assert!(auth.refused(&bearer("first")), "the other stream was refused with it too");
        renewed_to(&auth, "first");
        assert!(!auth.refused(&bearer("first")), "the authority has no other");
    }

    #[test]
    fn what_was_sent_is_scrubbed_though_it_is_thrown_away() {
        let auth = application();
        renewed_to(&auth, "first-token");
        auth.refused(&bearer("first-token"));
        renewed_to(&auth, "second-token");
        let said = auth.shown("first-token is refused", "", Some(&bearer("first-token")));
        assert!(said.contains("withheld"), "{said}");
    }

    #[test]
    fn an_access_token_that_cannot_be_used_is_no_grant() {
        let token = |json: &str| granted(json.as_bytes()).map(|answer| answer.access_token);
        for good in [
            r#"{"access_token": "a.b-c_d~e+f/g=="}"#,
            r#"{"access_token": "a.b-c_d~e+f/g==", "token_type": "bearer", "expires_in": "soon"}"#,
            r#"{"access_token": "a.b-c_d~e+f/g==", "token_type": null}"#,
        ] {
            assert_eq!(token(good).unwrap(), "a.b-c_d~e+f/g==", "{good}");
        }
        for (odd, words) in [
            (r#"{"access_token": ""}"#, "is empty"),
            (r#"{"access_token": "PLANTED PLANTED"}"#, "no HTTP header"),
            (r#"{"access_token": "PLANTED\r\nX: y"}"#, "no HTTP header"),
            (r#"{"access_token": "PLANT\u00cbD"}"#, "no HTTP header"),
            (r#"{"access_token": 5}"#, "no access token"),
            (r#"{"access_token": null}"#, "no access token"),
            ("{}", "no access token"),
            ("PLANTED", "no access token"),
            (r#"{"access_token": "PLANTED", "token_type": "mac"}"#, "another type than Bearer"),
        ] {
            let error = token(odd).unwrap_err();
            assert!(
                matches!(error, Error::Answer(said) if said.contains(words)),
                "{odd}: {error:?}"
            );
            assert!(!format!("{error:?}").contains("PLANT"), "{error:?}");
        }
    }
}
