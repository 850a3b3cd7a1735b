//! What a fault does to an answer that was ready to be sent.

use super::answer::Answer;
use super::fault::FaultKind;

/// Spoils an answer; gives how many bytes of its body arrive in a form that can be read.
pub(super) fn spoil(answer: &mut Answer, fault: Option<&FaultKind>) -> usize {
    match fault {
        Some(FaultKind::Cut(n_bytes)) => {
            answer.cut = Some(*n_bytes);
            *n_bytes
        }
        Some(FaultKind::Short(n_bytes)) => {
            answer.body = answer.body.chars().take(*n_bytes).collect();
            answer.body.len()
        }
        Some(FaultKind::BrokenJson) => {
            for list in ["data", "value", "results"] {
                let key = format!("\"{list}\"");
                answer.body = answer.body.replacen(&format!("{key}:["), &format!("{key}["), 1);
            }
            0
        }
        Some(FaultKind::Mark) => {
            answer.body.insert(0, '\u{FEFF}');
            usize::MAX
        }
        Some(FaultKind::ContentType(kind)) => {
            answer.content_type.clone_from(kind);
            usize::MAX
        }
        Some(_) | None => usize::MAX,
    }
}
