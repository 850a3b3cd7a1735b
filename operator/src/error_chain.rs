//! Errors of the API's client as one line of text, in our own words where the library was fed credentials: a kubeconfig's
//! reader, and what logs on with it.

use std::error::Error;

use kube::client::AuthError;
use kube::config::{InferConfigError, KubeconfigError, LoadDataError};
use siem_agent_edge::error_chain::chain_with;

/// `outermost: next: … : innermost`; see [`siem_agent_edge::error_chain`].
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    chain_with(error, credentials)
}

/// Our words for an error that was made from credentials, or prints one that was.
fn credentials(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Some(logging_on(error));
        }
        if let Some(error) = error.downcast_ref::<KubeconfigError>() {
            return Some(kubeconfig(error));
        }
        match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::RustlsTls(_)) => {
                return Some(
                    "the certificate, the key or the authority of the kubeconfig cannot be used; they have to be whole PEM blocks, \
                     the key without a passphrase"
                        .to_owned(),
                );
            }
            Some(kube::Error::Service(inner)) => next = Some(inner.as_ref()),
            Some(kube::Error::Auth(inner)) => next = Some(inner),
            Some(kube::Error::InferConfig(inner)) => next = Some(inner),
            Some(kube::Error::InferKubeconfig(inner)) => next = Some(inner),
            None if error.is::<InferConfigError>() => next = error.source(),
            Some(_) | None => return None,
        }
    }
    None
}

fn logging_on(error: &AuthError) -> String {
    match error {
        // The command that the error holds has its arguments and its environment in it.
        AuthError::AuthExecRun { out, .. } => {
            format!(
                "the credential plugin of the kubeconfig failed with {}; run it by hand",
                out.status
            )
        }
        AuthError::AuthExecStart(error) => {
            format!("the credential plugin of the kubeconfig cannot be started: {error}")
        }
        AuthError::ReadTokenFile(error, path) => {
            format!("the token file {} cannot be read: {error}", path.display())
        }
        _ => "the credentials of the kubeconfig cannot be used; log on again, such as with kubectl"
            .to_owned(),
    }
}

fn kubeconfig(error: &KubeconfigError) -> String {
    let data = |what: &str, error: &LoadDataError| match error {
        LoadDataError::ReadFile(error, path) => {
            format!("the {what} of the kubeconfig, {}, cannot be read: {error}", path.display())
        }
        _ => format!("the {what} of the kubeconfig is not base64, or is missing"),
    };
    match error {
        KubeconfigError::CurrentContextNotSet => {
            "no kubeconfig with a current context is there; set KUBECONFIG, or run in the cluster"
                .to_owned()
        }
        KubeconfigError::ReadConfig(error, path) => {
            format!("the kubeconfig {} cannot be read: {error}", path.display())
        }
        KubeconfigError::Parse(_) => {
            "the kubeconfig is not YAML of a kubeconfig's form; kubectl config view says where"
                .to_owned()
        }
        KubeconfigError::LoadContext(_) | KubeconfigError::LoadClusterOfContext(_) => {
            "the kubeconfig's current context, or its cluster, is not in it".to_owned()
        }
        KubeconfigError::LoadCertificateAuthority(error) => data("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => data("client certificate", error),
        KubeconfigError::LoadClientKey(error) => data("client key", error),
        KubeconfigError::ParseCertificates(_) => {
            "the certificate authority of the kubeconfig is not a whole PEM block".to_owned()
        }
        KubeconfigError::MissingClusterUrl
        | KubeconfigError::ParseClusterUrl(_)
        | KubeconfigError::ParseProxyUrl(_) => {
            "the server's URL, or the proxy's, in the kubeconfig cannot be read".to_owned()
        }
        KubeconfigError::FindPath => {
            "no kubeconfig is there; set KUBECONFIG, or run in the cluster".to_owned()
        }
        _ => "the kubeconfig cannot be used".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] kube::Error);

    #[test]
    fn what_was_fed_credentials_does_not_speak() {
        let out = std::process::Output {
            status: std::process::ExitStatus::default(),
            stdout: b"PLANTED".to_vec(),
            stderr: b"PLANTED".to_vec(),
        };
        let run =
            AuthError::AuthExecRun { cmd: "TOKEN=PLANTED aws".to_owned(), out: Box::new(out) };
        let text = chain(&Outer(kube::Error::Service(Box::new(run))));
        assert!(text.starts_with("outer: the credential plugin"), "{text}");
        assert!(!text.contains("PLANTED"), "{text}");
        let text = serde_saphyr::from_str::<u8>("users: [{user: {token: PLANTED}}]").unwrap_err();
        let text = chain(&KubeconfigError::Parse(Box::new(text)));
        assert!(text.contains("not YAML") && !text.contains("PLANTED"), "{text}");
    }
}
