//! Asks a real API server whether it would admit a SiemAgent, and by which field it refuses.
//!
//! Every question is a dry run with strict field validation, so that questions do not change the answers to others.

mod node;

use anyhow::{Context as _, Result};
use axum::http::Request;
use kube::core::Status;
use serde_json::{Value, json};

use siem_agent_sim::control_plane::ControlPlane;

use crate::api_client::ApiClient;

pub use node::{Broken, Node, nodes, set};

/// The way in which a manifest comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `kubectl create`.
    Create,
    /// `kubectl apply --server-side`.
    Apply,
    /// `kubectl replace`, of the object that was kept.
    Replace,
}

/// Why a manifest was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The whole text, as kubectl prints it.
    pub message: String,
    /// The fields named one by one, where the server does so.
    pub fields: Vec<String>,
}

/// A namespace in which to ask.
#[derive(Debug)]
pub struct Admission {
    /// The server.
    pub plane: &'static ControlPlane,
    client: ApiClient,
    namespace: String,
}

/// An object that stands in a namespace of its own.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its namespace.
    pub namespace: String,
    resource_version: String,
}

impl Admission {
    /// Has the CRD installed and makes a namespace.
    ///
    /// # Errors
    /// When the control plane does not come up.
    pub async fn start() -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        plane.install_crd().await?;
        let client = ApiClient(plane.client().await?);
        Ok(Self { plane, client, namespace: plane.namespace().await? })
    }

    /// Makes the object, to be replaced later.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn keep(&self, manifest: &Value) -> Result<Kept> {
        let namespace = self.plane.namespace().await?;
        let path = format!("{}?fieldValidation=Strict", collection(&namespace));
        let made = self.ask("POST", &path, "application/json", manifest).await?;
        let made = made.map_err(|refused| anyhow::anyhow!("{}", refused.message))?;
        let version = made.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let resource_version = version.context("a resource version")?.to_owned();
        Ok(Kept { namespace, resource_version })
    }

    /// Whether a manifest would be admitted, and as what; the namespace in it is left out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn admit(
        &self,
        verb: Verb,
        kept: Option<&Kept>,
        manifest: &Value,
    ) -> Result<Result<Value, Refused>> {
        let mut manifest = manifest.clone();
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let namespace = kept.map_or(&*self.namespace, |kept| &*kept.namespace);
        let collection = collection(namespace);
        let options = "dryRun=All&fieldValidation=Strict";
        let path = match verb {
            Verb::Create => format!("{collection}?{options}"),
            Verb::Apply => format!("{collection}/{name}?{options}&fieldManager=test&force=true"),
            Verb::Replace => format!("{collection}/{name}?{options}"),
        };
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("namespace");
            if let (Verb::Replace, Some(kept)) = (verb, kept) {
                metadata.insert("resourceVersion".to_owned(), json!(kept.resource_version));
            }
        }
        let (method, content) = match verb {
            Verb::Create => ("POST", "application/json"),
            Verb::Apply => ("PATCH", "application/apply-patch+yaml"),
            Verb::Replace => ("PUT", "application/json"),
        };
        self.ask(method, &path, content, &manifest).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        content: &str,
        body: &Value,
    ) -> Result<Result<Value, Refused>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .body(serde_json::to_vec(body)?)?;
        match self.client.0.request::<Value>(request).await {
            Ok(admitted) => Ok(Ok(admitted)),
            Err(kube::Error::Api(status)) => Ok(Err(refused(*status))),
            Err(error) => Err(error).context("ask the API server"),
        }
    }
}

impl Refused {
    /// Whether it names this field, empty for the whole object, and holds any of these words.
    pub fn names(&self, field: &str, words: &[&str]) -> bool {
        let field = if field.is_empty() { "<nil>" } else { field };
        // Unknown fields and those that server-side apply cannot type are only in the text.
        // The latter names the list, where an entry stands in it twice.
        let list = field.rsplit_once('[').map_or(field, |(list, _)| list);
        let in_text =
            [format!("\"{field}\""), format!(".{field}: "), format!(".{list}: duplicate")];
        let named = self.fields.iter().any(|named| named == field)
            || in_text.iter().any(|at| self.message.contains(at));
        named && (words.is_empty() || words.iter().any(|words| self.message.contains(words)))
    }
}

fn refused(status: Status) -> Refused {
    let causes = status.details.map(|details| details.causes).unwrap_or_default();
    let fields = causes.into_iter().map(|cause| cause.field).collect();
    Refused { message: status.message, fields }
}

fn collection(namespace: &str) -> String {
    format!("/apis/siemagent.dev/v1alpha1/namespaces/{namespace}/siemagents")
}
