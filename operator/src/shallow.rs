//! Answers of the API server, cut where they are nested deeper than anything that this program reads. Pure.
//!
//! A raw filter has any form, and the server takes it nested thousands of levels deep; the client's JSON reader gives up
//! at 128, and with it on the whole list in which one user's agent stands. What lies deeper is read as `null`, and the
//! agent refused for it ([`siem_agent_crds::manifest::too_large`]).

use axum::body::{Bytes, HttpBody};
use http::Response;
use http_body_util::BodyExt as _;

/// Levels that are read: fewer than the client's reader takes, and far more than any object of ours has.
const LEVELS: u32 = 100;

/// An answer whose body is cut as it comes in.
pub(crate) fn shallow<B>(
    answer: Response<B>,
) -> Response<impl HttpBody<Data = Bytes, Error = B::Error>>
where
    B: HttpBody<Data = Bytes>,
{
    let mut cutter = Cutter::default();
    answer.map(|body| body.map_frame(move |frame| frame.map_data(|data| cutter.pass(data))))
}

/// Where in a JSON text the last byte was.
#[derive(Debug, Default)]
struct Cutter {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

enum Byte {
    Stays,
    Goes,
    /// It begins what is read as `null`.
    Null,
}

impl Cutter {
    /// The next bytes of the text, without what lies too deep.
    fn pass(&mut self, bytes: Bytes) -> Bytes {
        // Nearly all is passed on as it is.
        let mut cut: Option<Vec<u8>> = None;
        for (index, byte) in bytes.iter().enumerate() {
            let fate = self.look(*byte);
            if !matches!(fate, Byte::Stays) && cut.is_none() {
                cut = Some(bytes.iter().take(index).copied().collect());
            }
            match (fate, &mut cut) {
                (Byte::Stays, Some(cut)) => cut.push(*byte),
                (Byte::Null, Some(cut)) => cut.extend_from_slice(b"null"),
                _ => {}
            }
        }
        cut.map_or(bytes, Bytes::from)
    }

    fn look(&mut self, byte: u8) -> Byte {
        let was_shallow = self.depth <= LEVELS;
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if was_shallow && self.depth > LEVELS {
                        return Byte::Null;
                    }
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if was_shallow { Byte::Stays } else { Byte::Goes }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cut(text: &str, n_bytes: usize) -> String {
        let mut cutter = Cutter::default();
        let chunks = text.as_bytes().chunks(n_bytes);
        let parts = chunks.flat_map(|chunk| cutter.pass(Bytes::copy_from_slice(chunk)));
        String::from_utf8(parts.collect()).unwrap()
    }

    fn nested(levels: usize) -> String {
        format!("{}\"}}]\\\"[{{\"{}", "{\"a\":[".repeat(levels / 2), "]}".repeat(levels / 2))
    }

    #[test]
    fn what_is_nested_too_deeply_is_null_and_the_rest_stays() {
        for n_bytes in [1, 2, 7, 1_000_000] {
            let shallow = format!("[{},\"\\\\\",{{\"b\":[1]}}]", nested(90));
            assert_eq!(cut(&shallow, n_bytes), shallow);
            let deep = format!(
                "{{\"first\":[1,{{}}],\"deep\":{},\"last\":{{\"x\":[2]}}}}\n",
                nested(5_000)
            );
            let lines = cut(&format!("{deep}{deep}"), n_bytes);
            for line in lines.lines() {
                let read: Value = serde_json::from_str(line).unwrap();
                assert_eq!((&read["first"], &read["last"]), (&json!([1, {}]), &json!({"x": [2]})));
                assert!(line.contains("null"));
            }
            assert_eq!(lines.lines().count(), 2);
        }
    }
}
