//! Escapes client-supplied text for log lines.
//!
//! The result is printable ASCII and cannot end a line or a quotation, so a client cannot forge log lines.

/// Quotes text as web servers do: `\xHH`, and a backslash before quotes.
pub fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    bare(text, out);
    out.push(b'"');
}

/// Escapes without quotation marks.
pub fn bare(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|b| !plain(*b)) {
        out.extend_from_slice(&text[..at]);
        match text[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                out.extend_from_slice(b"\\x");
                hex(byte, out);
            }
        }
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

fn plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(const_hex::encode([byte]).as_bytes());
}

/// Writes a JSON string. Invalid UTF-8 becomes U+FFFD; non-ASCII is escaped.
pub fn json(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if text.iter().all(|b| plain(*b)) {
        out.extend_from_slice(text);
    } else {
        for unit in String::from_utf8_lossy(text).encode_utf16() {
            match unit {
                0x22 | 0x5c => out.extend_from_slice(&[b'\\', unit as u8]),
                0x20..=0x7e => out.push(unit as u8),
                _ => {
                    out.extend_from_slice(b"\\u");
                    hex((unit >> 8) as u8, out);
                    hex(unit as u8, out);
                }
            }
        }
    }
    out.push(b'"');
}

/// Writes a logfmt value: quoted unless it is one plain word.
pub fn logfmt(text: &[u8], out: &mut Vec<u8>) {
    let word = |b: &u8| plain(*b) && !matches!(b, b' ' | b'=');
    if !text.is_empty() && text.iter().all(word) {
        out.extend_from_slice(text);
    } else {
        quoted(text, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(escape: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hostile_text_stays_inside_its_quotes() {
        let evil = b"a\"b\\c\r\nd\x7f\xc3\xa9\x1b[0m\0";
        let expected = r#""a\"b\\c\x0d\x0ad\x7f\xc3\xa9\x1b[0m\x00""#;
        assert_eq!(run(quoted, evil), expected);
        assert_eq!(run(logfmt, evil), expected);
        assert_eq!(run(json, evil), r#""a\"b\\c\u000d\u000ad\u007f\u00e9\u001b[0m\u0000""#);
    }

    #[test]
    fn json_strings_decode_to_the_original_text() {
        let text: String = (0..0x3000).filter_map(char::from_u32).chain(['\u{1f600}']).collect();
        let parsed: String = serde_json::from_str(&run(json, text.as_bytes())).unwrap();
        assert_eq!(parsed, text);
        assert_eq!(run(json, b"\xff"), "\"\\ufffd\"");
    }

    #[test]
    fn plain_words_are_not_quoted_in_logfmt() {
        assert_eq!(run(logfmt, b"/a/b?c"), "/a/b?c");
        assert_eq!(run(logfmt, b"a=b"), "\"a=b\"");
        assert_eq!(run(logfmt, b""), "\"\"");
    }
}
