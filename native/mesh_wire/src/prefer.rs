//! Which form of an error a client prefers to read, by its `Accept` field.

/// The form a client would rather read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    #[default]
    Text,
    Html,
    Json,
}

impl Prefer {
    /// Whichever of the three `Accept` names first. Weights are not looked at: this is about the
    /// looks of an error.
    pub fn of(accept: &[u8]) -> Prefer {
        let mut rest = accept;
        loop {
            rest = rest.trim_ascii_start();
            if names(rest, b"text/html") {
                return Prefer::Html;
            }
            if names(rest, b"application/json") {
                return Prefer::Json;
            }
            if names(rest, b"text/plain") {
                return Prefer::Text;
            }
            let Some(comma) = memchr::memchr(b',', rest) else { return Prefer::Text };
            rest = &rest[comma + 1..];
        }
    }
}

/// Whether the first of these media ranges is this one, with parameters or without.
fn names(ranges: &[u8], known: &[u8]) -> bool {
    ranges.split_at_checked(known.len()).is_some_and(|(range, rest)| {
        range.eq_ignore_ascii_case(known)
            && matches!(rest.trim_ascii_start().first(), None | Some(b',' | b';'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_type_counts() {
        assert_eq!(Prefer::of(b"text/html,application/xhtml+xml,*/*;q=0.8"), Prefer::Html);
        assert_eq!(Prefer::of(b"application/json, text/html"), Prefer::Json);
        assert_eq!(Prefer::of(b"image/*;q=0.1 , Application/JSON ;q=0.9"), Prefer::Json);
        assert_eq!(Prefer::of(b"text/htmlx, text/html-like, text/plain, text/html"), Prefer::Text);
        assert_eq!(Prefer::of(b"*/*"), Prefer::Text);
        assert_eq!(Prefer::of(b""), Prefer::Text);
    }
}
