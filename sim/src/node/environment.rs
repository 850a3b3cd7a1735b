//! A container's environment: values, the downward API, keys of Secrets and ConfigMaps, and `$(NAME)` in texts. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// Gives a key's text: kind (`secret` or `configmap`), name, key.
pub(super) type Lookup<'a> =
    dyn Fn(&'static str, &str, &str) -> Result<Option<String>, String> + Sync + 'a;

/// The variables in the order of the container, or why they cannot be made.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    address: IpAddr,
    lookup: &Lookup<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::new();
    if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
        return Err("the stand-in does not know envFrom".to_owned());
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(pod, variable, address, &environment, lookup)? {
            environment.insert(variable.name.clone(), value);
        }
    }
    Ok(environment)
}

fn value(
    pod: &Pod,
    variable: &EnvVar,
    address: IpAddr,
    before: &BTreeMap<String, String>,
    lookup: &Lookup<'_>,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), before)));
    };
    if let Some(field) = &from.field_ref {
        return field_of(pod, &field.field_path, address).map(Some);
    }
    let (kind, name, key, optional) = if let Some(of) = &from.secret_key_ref {
        ("secret", &of.name, &of.key, of.optional)
    } else if let Some(of) = &from.config_map_key_ref {
        ("configmap", &of.name, &of.key, of.optional)
    } else {
        return Err(format!("the stand-in does not know where {} comes from", variable.name));
    };
    match lookup(kind, name, key) {
        Ok(Some(text)) => Ok(Some(text)),
        Ok(None) | Err(_) if optional == Some(true) => Ok(None),
        Ok(None) => Err(format!("couldn't find key {key} in {kind} {name}")),
        Err(error) => Err(error),
    }
}

/// A field of the downward API.
pub(super) fn field_of(pod: &Pod, path: &str, address: IpAddr) -> Result<String, String> {
    let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
    let of_map = |map: Option<&BTreeMap<String, String>>, rest: &str| {
        let key = rest.trim_start_matches("['").trim_end_matches("']");
        map.and_then(|map| map.get(key)).cloned()
    };
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some("127.0.0.1".to_owned()),
        _ => {
            match (path.strip_prefix("metadata.labels"), path.strip_prefix("metadata.annotations"))
            {
                (Some(rest), _) => of_map(metadata.labels.as_ref(), rest),
                (_, Some(rest)) => of_map(metadata.annotations.as_ref(), rest),
                (None, None) => return Err(format!("the stand-in does not know the field {path}")),
            }
        }
    };
    Ok(value.unwrap_or_default())
}

/// Replaces `$(NAME)` where NAME is known; `$$` is one `$`.
pub(super) fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let name = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        (out, rest) = match (after.strip_prefix('$'), name) {
            (Some(after), _) => (out + "$", after),
            (None, Some((name, after))) if environment.contains_key(name) => {
                (out + environment.get(name).map_or("", String::as_str), after)
            }
            (None, _) => (out + "$", after),
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_brackets_are_replaced_where_they_are_known() {
        let environment = BTreeMap::from([("IP".to_owned(), "127.0.0.9".to_owned())]);
        for (text, expected) in [
            ("--listen=$(IP):9464", "--listen=127.0.0.9:9464"),
            ("$$(IP) $(NO) $IP $", "$(IP) $(NO) $IP $"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &environment), expected);
        }
    }
}
