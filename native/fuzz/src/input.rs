//! Takes an input apart.

/// The input, from its front.
pub struct Input<'d>(pub &'d [u8]);

impl<'d> Input<'d> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A length, and so many bytes.
    pub fn bytes(&mut self) -> Option<&'d [u8]> {
        let n = usize::from(self.byte()?).min(self.0.len());
        let (bytes, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(bytes)
    }
}
