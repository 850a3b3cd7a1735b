//! Who we are to the API: a legacy token as it stands in its file, or an access token from Entra ID.
//!
//! Legacy: `Authorization: Token <value>`. Entra: the client credentials grant (RFC 6749, section 4.4) at
//! `<authority>/<tenant>/oauth2/v2.0/token` for the scope of Microsoft Cloud App Security; the access token is kept
//! until a little before it expires, and thrown away when the API refuses it: one fresh one is tried then, and only when
//! that is refused too is it the application that is not let in. The secret's file is read at each use.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::Error;
use super::wire::answer::{TokenAnswer, TokenRefusal};
use crate::event::Stream;
use crate::secret::{Secret, SecretFile};

/// The application id of Microsoft Cloud App Security, with the permissions that an administrator consented to.
const SCOPE: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default";
/// An access token is renewed when this share of its life is over…
const RENEW_AFTER: f64 = 0.8;
/// …but is used this long at least, so that a server that grants no time at all is not asked before each request.
const LEAST_LIFE: Duration = Duration::from_secs(2);
/// …and not longer than this, whatever is promised; Entra grants 24 hours at most.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The longest text of a server that is passed on.
const MAX_DETAIL_CHARS: usize = 300;

/// How to authenticate.
#[derive(Debug, Clone)]
pub enum Settings {
    /// An API token of the portal.
    Token(SecretFile),
    /// An application of Entra ID.
    ClientCredentials {
        /// Directory (tenant) id.
        tenant_id: String,
        /// Application (client) id.
        client_id: String,
        /// Holds the client secret.
        client_secret: SecretFile,
        /// Such as `https://login.microsoftonline.com`, without a slash at the end.
        authority: String,
    },
}

/// Makes the `Authorization` header.
#[derive(Debug)]
pub(super) struct Auth {
    settings: Settings,
    state: Mutex<State>,
    /// Both streams may want an access token at once; one request for it is enough.
    renewing: tokio::sync::Mutex<()>,
}

/// What a request was authorized with.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    /// The header's value.
    pub(super) header: HeaderValue,
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
    /// The secret that each stream has tried last; `None` where there was none.
    tried: BTreeMap<Stream, Option<Secret>>,
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
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    fn file(&self) -> &SecretFile {
        match &self.settings {
            Settings::Token(file) | Settings::ClientCredentials { client_secret: file, .. } => file,
        }
    }

    /// Whether the secret differs from the one that this stream has tried last: worth a try at once. The other stream
    /// may have used it already.
    pub(super) fn secret_changed(&self, stream: Stream) -> bool {
        let now = self.file().read().ok();
        let state = self.lock();
        now.is_some() && now != *state.tried.get(&stream).unwrap_or(&state.used)
    }

    /// The API took it.
    pub(super) fn accepted(&self, authorization: &Authorization) {
        if authorization.access.is_some() {
            self.lock().in_vain = false;
        }
    }

    /// The API refused it. Says whether a fresh access token may help; the refused one is thrown away.
    pub(super) fn refused(&self, authorization: &Authorization) -> bool {
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

    /// What to authorize the next request of a stream with.
    pub(super) async fn authorization(
        &self,
        stream: Stream,
        client: &Client,
    ) -> Result<Authorization, Error> {
        let secret = self.file().read();
        self.lock().tried.insert(stream, secret.as_ref().ok().cloned());
        let secret = secret.map_err(Error::Secret)?;
        let (text, access) = match &self.settings {
            Settings::Token(_) => {
                self.lock().used = Some(secret.clone());
                (format!("Token {}", secret.expose()), None)
            }
            Settings::ClientCredentials { .. } => {
                let _alone = self.renewing.lock().await;
                let access = match self.cached(&secret) {
                    Some(access) => access,
                    None => self.renew(client, secret.clone()).await?,
                };
                (format!("Bearer {}", access.expose()), Some(access))
            }
        };
        let mut header =
            HeaderValue::from_str(&text).map_err(|_unprintable| Error::TokenUnsendable)?;
        header.set_sensitive(true);
        Ok(Authorization { header, access })
    }

    /// Takes every secret of ours out of a text that a server wrote, also the one that was sent to it, which may not be
    /// in use any more; and makes it one short line.
    pub(super) fn scrub(&self, text: &str, sent: Option<&Authorization>) -> String {
        let state = self.lock();
        let mut text = text.to_owned();
        let known = state.used.iter().chain(state.access.iter().map(|access| &access.token));
        for secret in known.map(Secret::expose).chain(sent.and_then(Authorization::secret)) {
            text = text.replace(secret, "[secret]");
        }
        drop(state);
        let one_line: String =
            text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        one_line
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(MAX_DETAIL_CHARS)
            .collect()
    }

    fn cached(&self, secret: &Secret) -> Option<Secret> {
        let state = self.lock();
        let access = state.access.as_ref()?;
        (state.used.as_ref() == Some(secret) && Instant::now() < access.renew_at)
            .then(|| access.token.clone())
    }

    async fn renew(&self, client: &Client, secret: Secret) -> Result<Secret, Error> {
        let Settings::ClientCredentials { tenant_id, client_id, authority, .. } = &self.settings
        else {
            return Err(Error::TokenUnsendable);
        };
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret.expose()),
            ("scope", SCOPE),
        ];
        let url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        let asked = Instant::now();
        let mut answer = client.post(url).form(&form).send().await.map_err(Error::identity)?;
        let status = answer.status();
        let body = super::beginning(&mut answer).await;
        self.lock().used = Some(secret);
        if status.is_success() {
            let answer: TokenAnswer =
                serde_json::from_slice(&body).map_err(|_shape| Error::IdentityAnswer)?;
            let life = Duration::from_secs(answer.expires_in).min(LONGEST_LIFE);
            let life = life.mul_f64(RENEW_AFTER).max(LEAST_LIFE);
            let token = Secret::of(answer.access_token);
            self.lock().access = Some(Access { token: token.clone(), renew_at: asked + life });
            return Ok(token);
        }
        let refusal: Option<TokenRefusal> = serde_json::from_slice(&body).ok();
        let detail = refusal.map_or_else(String::new, |refusal| self.scrub(&refusal.text(), None));
        Err(match status.as_u16() {
            400 | 401 | 403 => Error::Unauthorized { detail },
            429 => Error::Throttled { retry_after: None },
            code => Error::IdentityStatus { code, detail },
        })
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(token: &str) -> Authorization {
        let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        Authorization { header, access: Some(Secret::of(token.to_owned())) }
    }

    fn application() -> Auth {
        Auth::new(Settings::ClientCredentials {
            tenant_id: "t".to_owned(),
            client_id: "c".to_owned(),
            client_secret: SecretFile::new("nowhere".into()),
            authority: "https://login.example".to_owned(),
        })
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
        let said = auth.scrub("first-token is not second-token", Some(&bearer("first-token")));
        assert_eq!(said, "[secret] is not [secret]");
    }

    #[tokio::test]
    async fn a_secret_is_worth_a_try_for_each_stream_that_has_not_tried_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let auth = Auth::new(Settings::Token(SecretFile::new(path.clone())));
        let http = crate::source::client::Keeper::new(None, None).current().unwrap();
        let changed = || [Stream::Alerts, Stream::Activities].map(|of| auth.secret_changed(of));
        std::fs::write(&path, "first").unwrap();
        auth.authorization(Stream::Alerts, &http).await.unwrap();
        assert_eq!(changed(), [false, false], "what one was refused with halts both");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(changed(), [true, true]);
        auth.authorization(Stream::Alerts, &http).await.unwrap();
        auth.authorization(Stream::Activities, &http).await.unwrap();
        assert_eq!(changed(), [false, false]);
        std::fs::write(&path, "third").unwrap();
        auth.authorization(Stream::Activities, &http).await.unwrap();
        assert_eq!(changed(), [true, false], "the other one has not tried it");
        std::fs::remove_file(&path).unwrap();
        auth.authorization(Stream::Alerts, &http).await.unwrap_err();
        assert!(!auth.secret_changed(Stream::Alerts), "there is nothing to try");
        std::fs::write(&path, "third").unwrap();
        assert_eq!(changed(), [true, false], "it is there again");
    }
}
