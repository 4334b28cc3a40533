//! Recognises HTTP/2 connections by the client connection preface.

/// RFC 9113 section 3.4: the client connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins with the HTTP/2 preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    No,
    Partial,
    Whole,
}

impl Preface {
    pub fn of(bytes: &[u8]) -> Preface {
        let n = bytes.len().min(PREFACE.len());
        match bytes[..n] == PREFACE[..n] {
            false => Preface::No,
            true if n < PREFACE.len() => Preface::Partial,
            true => Preface::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_complete_preface_is_recognised() {
        for cut in 0..PREFACE.len() {
            assert_eq!(Preface::of(&PREFACE[..cut]), Preface::Partial);
        }
        assert_eq!(Preface::of(PREFACE), Preface::Whole);
        assert_eq!(Preface::of(&[PREFACE, b"more"].concat()), Preface::Whole);
        assert_eq!(Preface::of(b"POST / HTTP/1.1\r\n"), Preface::No);
        assert_eq!(Preface::of(b"PRI * HTTP/2.0\r\n\r\nXX"), Preface::No);
    }
}
