//! How large a spec may be, where the schema cannot say: a raw filter and a patch have any form, and no rule of the API
//! server sees what is in them. Pure.

use serde_json::Value;

use super::Problem;

/// The most that a spec may take as JSON.
pub const MAX_SPEC_BYTES: usize = 64 * 1024;
/// The most that one raw filter may take as JSON: its small parts take many times as much once they are read.
pub const MAX_RAW_BYTES: usize = 4 * 1024;
/// How deeply a raw filter or a patch may be nested: a filter of the API is three levels deep, a pod template ten.
pub const MAX_RAW_LEVELS: usize = 16;
/// The most that the patch on the pod template may take as JSON.
const MAX_OVERRIDES_BYTES: usize = 16 * 1024;

/// Places of any content, and the most bytes that each may take.
const OPEN: [(&str, usize); 3] = [
    ("eventTypes.alerts.filter.raw", MAX_RAW_BYTES),
    ("eventTypes.activities.filter.raw", MAX_RAW_BYTES),
    ("forwarder.podOverrides", MAX_OVERRIDES_BYTES),
];

/// What is too large in a spec.
pub fn too_large(spec: &Value) -> Option<Problem> {
    let n_bytes = |value: &Value| value.to_string().len();
    for (path, most) in OPEN {
        let raw = spec.pointer(&format!("/{}", path.replace('.', "/")));
        let path = format!("spec.{path}");
        if raw.is_some_and(|raw| is_deeper(raw, MAX_RAW_LEVELS)) {
            return Some(Problem::new(
                path,
                format!("is nested deeper than {MAX_RAW_LEVELS} levels"),
            ));
        }
        if let Some(n_bytes) = raw.map(n_bytes).filter(|n_bytes| *n_bytes > most) {
            return Some(Problem::new(
                path,
                format!("takes {n_bytes} bytes as JSON; at most {most} are read"),
            ));
        }
    }
    let n_bytes = n_bytes(spec);
    (n_bytes > MAX_SPEC_BYTES).then(|| {
        Problem::new(
            "spec",
            format!("takes {n_bytes} bytes as JSON; at most {MAX_SPEC_BYTES} are read"),
        )
    })
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => return false,
    };
    levels == 0 || inner.any(|value| is_deeper(value, levels - 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_or_a_raw_filter_that_is_too_large_is_named() {
        let raw = |n: usize| json!({"eventTypes": {"alerts": {"filter": {"raw": {"x": {"eq": "a".repeat(n)}}}}}});
        assert_eq!(too_large(&raw(4_000)), None);
        let problem = too_large(&raw(4_100)).unwrap();
        assert_eq!(problem.path, "spec.eventTypes.alerts.filter.raw");
        let nested = |n: usize| (1..n).fold(json!({}), |inner, _| json!({"x": inner}));
        let raw = |n| json!({"eventTypes": {"activities": {"filter": {"raw": nested(n)}}}});
        assert_eq!(too_large(&raw(16)), None);
        assert!(too_large(&raw(17)).unwrap().message.contains("deeper than 16"));
        let spec = |n: usize| json!({"displayName": "a".repeat(n)});
        assert_eq!(too_large(&spec(65_000)), None);
        assert_eq!(too_large(&spec(65_600)).unwrap().path, "spec");
    }
}
