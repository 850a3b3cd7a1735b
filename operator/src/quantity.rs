//! Kubernetes' quantities (`100m`, `64Mi`, `0.5`), as far as one needs to compare them. Pure.

/// The value in billionths, or `None` for what the API server would refuse.
pub(crate) fn parse(text: &str) -> Option<i128> {
    const SUFFIXES: [(&str, i128); 16] = [
        ("Ki", 1_000_000_000 << 10),
        ("Mi", 1_000_000_000 << 20),
        ("Gi", 1_000_000_000 << 30),
        ("Ti", 1_000_000_000 << 40),
        ("Pi", 1_000_000_000 << 50),
        ("Ei", 1_000_000_000 << 60),
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("k", 1_000_000_000_000),
        ("M", 1_000_000_000_000_000),
        ("G", 1_000_000_000_000_000_000),
        ("T", 1_000_000_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000_000_000_000),
        ("", 1_000_000_000),
    ];
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let n_number =
        unsigned.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(n_number);
    let scale = match suffix.strip_prefix(['e', 'E']).and_then(|exponent| exponent.parse().ok()) {
        Some(exponent @ 0_u32..=18) => 10_i128.checked_pow(exponent)?.checked_mul(1_000_000_000)?,
        Some(_) => return None,
        None => SUFFIXES.iter().find(|(known, _)| *known == suffix)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value =
        digits.checked_mul(scale)? / 10_i128.checked_pow(fraction.len().try_into().ok()?)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (one, other) in
            [("0.5", "500m"), ("1Gi", "1024Mi"), ("1", "1000m"), ("1e3", "1k"), ("1.5Gi", "1536Mi")]
        {
            assert_eq!(parse(one), parse(other), "{one} {other}");
            assert!(parse(one).is_some());
        }
        for text in ["", "lots", "1.2.3", "1KiB", ".", "1 Gi", "e3"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("32Mi") < parse("128Mi"));
    }
}
