//! Validates and creates request ids and trace ids, which connect the logs of the gateway and the endpoint.
//!
//! `X-Request-Id` is kept if Plug.RequestId would accept it. A W3C `traceparent` is created only if the
//! configuration asks for it.

/// Lengths that Plug.RequestId accepts.
const REQUEST_ID: std::ops::RangeInclusive<usize> = 20..=200;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestId {
    #[default]
    None,
    Made(u128),
    /// Sent by the client.
    Given(Box<[u8]>),
}

impl RequestId {
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            RequestId::None => {}
            RequestId::Made(id) => {
                let mut digits = [0; 32];
                hex(&id.to_be_bytes(), &mut digits);
                out.extend_from_slice(&digits);
            }
            RequestId::Given(text) => out.extend_from_slice(text),
        }
    }
}

/// The value of a field that must not be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SingleValue<'b> {
    #[default]
    Absent,
    One(&'b [u8]),
    Many,
}

impl<'b> SingleValue<'b> {
    pub fn add(&mut self, value: &'b [u8]) {
        *self = match self {
            SingleValue::Absent => SingleValue::One(value),
            _ => SingleValue::Many,
        };
    }

    pub fn valid(self, rule: impl FnOnce(&[u8]) -> bool) -> Option<&'b [u8]> {
        match self {
            SingleValue::One(value) if rule(value) => Some(value),
            _ => None,
        }
    }
}

/// Whether Plug.RequestId accepts the length, and every character is printable ASCII.
pub fn is_request_id(value: &[u8]) -> bool {
    REQUEST_ID.contains(&value.len()) && value.iter().all(|b| matches!(b, b' '..=b'~'))
}

/// Returns the trace id of a valid `traceparent` (W3C Trace Context section 3.2).
pub fn trace_id(value: &[u8]) -> Option<&[u8]> {
    let lower_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = value.get(..55)?;
    let dashes = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let parts = [version, trace, parent, flags];
    // A later version may continue after another dash.
    let end = match value.get(55) {
        None => true,
        Some(next) => version != b"00" && *next == b'-',
    };
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let good = dashes && end && version != b"ff" && parts.into_iter().all(lower_hex);
    (good && !zero(trace) && !zero(parent)).then_some(trace)
}

/// Creates a `traceparent` that begins a sampled trace: an endpoint that follows its parent's decision would
/// record nothing otherwise. The ids are random; neither may be 0.
pub fn traceparent(trace_id: u128, parent_id: u64) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    hex(&trace_id.max(1).to_be_bytes(), &mut text[3..35]);
    hex(&parent_id.max(1).to_be_bytes(), &mut text[36..52]);
    text
}

fn hex(bytes: &[u8], digits: &mut [u8]) {
    // Fails only if `digits` has the wrong length.
    let _ = const_hex::encode_to_slice(bytes, digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_accept_generated_ids() {
        let mut text = Vec::new();
        RequestId::Made(0xabc).write(&mut text);
        assert_eq!(text, b"00000000000000000000000000000abc");
        assert!(is_request_id(&text));
    }

    #[test]
    fn ids_with_a_bad_length_or_character_are_rejected() {
        assert!(is_request_id(b"F-0123456789_abcdef+"));
        assert!(is_request_id(&[b'a'; 200]));
        for bad in [&b""[..], &[b'a'; 19], &[b'a'; 201], b"twenty bytes\tof text", &[0xc3; 20]] {
            assert!(!is_request_id(bad), "{:?}", bad.escape_ascii());
        }
    }

    #[test]
    fn malformed_traceparents_are_rejected() {
        let good: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_id(good), Some(&good[3..35]));
        assert!(trace_id(&traceparent(0, 7)).is_some());
        let later = [b"cc", &good[2..], b"-what"].concat();
        assert!(trace_id(&later).is_some());
        let bad: [&[u8]; 7] = [
            b"",
            &good[..54],
            &[good, b"-what"].concat(),
            &[b"ff", &good[2..]].concat(),
            &good.to_ascii_uppercase(),
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ];
        for bad in bad {
            assert_eq!(trace_id(bad), None, "{:?}", bad.escape_ascii());
        }
    }
}
