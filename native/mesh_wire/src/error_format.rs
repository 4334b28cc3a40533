//! Selects the format of an error response from the `Accept` field.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    #[default]
    Text,
    Html,
    Json,
}

impl ErrorFormat {
    /// Returns the first of the three formats that `Accept` names. Ignores weights: only the look of an
    /// error depends on it.
    pub fn from_accept(accept: &[u8]) -> ErrorFormat {
        let mut rest = accept;
        loop {
            rest = rest.trim_ascii_start();
            if names(rest, b"text/html") {
                return ErrorFormat::Html;
            }
            if names(rest, b"application/json") {
                return ErrorFormat::Json;
            }
            if names(rest, b"text/plain") {
                return ErrorFormat::Text;
            }
            let Some(comma) = memchr::memchr(b',', rest) else { return ErrorFormat::Text };
            rest = &rest[comma + 1..];
        }
    }
}

/// Whether the first media range is `known`, with or without parameters.
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
        assert_eq!(
            ErrorFormat::from_accept(b"text/html,application/xhtml+xml,*/*;q=0.8"),
            ErrorFormat::Html
        );
        assert_eq!(ErrorFormat::from_accept(b"application/json, text/html"), ErrorFormat::Json);
        assert_eq!(
            ErrorFormat::from_accept(b"image/*;q=0.1 , Application/JSON ;q=0.9"),
            ErrorFormat::Json
        );
        assert_eq!(
            ErrorFormat::from_accept(b"text/htmlx, text/html-like, text/plain, text/html"),
            ErrorFormat::Text
        );
        assert_eq!(ErrorFormat::from_accept(b"*/*"), ErrorFormat::Text);
        assert_eq!(ErrorFormat::from_accept(b""), ErrorFormat::Text);
    }
}
