//! Writes field lines and numbers, and locates a slice in its buffer.

pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Returns the offset of `part`, a slice of `whole`.
pub(crate) fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes nanoseconds as milliseconds with three decimals.
pub fn millis(out: &mut Vec<u8>, nanos: u64) {
    number(out, nanos / 1_000_000);
    // The leading 1 preserves the zeros and is not written.
    let mut micros = itoa::Buffer::new();
    let micros = micros.format(1000 + nanos / 1000 % 1000);
    out.push(b'.');
    out.extend_from_slice(&micros.as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_become_milliseconds_with_three_decimals() {
        for (nanos, text) in [(0, "0.000"), (45_000, "0.045"), (1_234_567_890, "1234.567")] {
            let mut out = Vec::new();
            millis(&mut out, nanos);
            assert_eq!(out, text.as_bytes());
        }
    }
}
