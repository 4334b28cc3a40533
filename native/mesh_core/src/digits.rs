//! Numbers in text without the machinery of formatting: some are written for every request.

/// Decimal digits.
pub fn number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

/// Nanoseconds as milliseconds with three decimals.
pub fn millis(nanos: u64, out: &mut Vec<u8>) {
    number(nanos / 1_000_000, out);
    let micros = nanos / 1000 % 1000;
    let digit = |n: u64| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

/// Lower-case hexadecimal digits, all of them.
pub fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(number.to_be_bytes()) {
        *pair = PAIRS[usize::from(byte)];
    }
    text
}

/// The two digits of each byte.
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_should() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        for n in [0, 7, 10, 99, 12_345, u64::MAX] {
            assert_eq!(text(&|out| number(n, out)), n.to_string());
        }
        assert_eq!(text(&|out| millis(0, out)), "0.000");
        assert_eq!(text(&|out| millis(1_234_567_890, out)), "1234.567");
        assert_eq!(text(&|out| millis(45_000, out)), "0.045");
        assert_eq!(&hex(0xabc)[28..], b"0abc");
        assert_eq!(hex(u128::MAX), [b'f'; 32]);
    }
}
