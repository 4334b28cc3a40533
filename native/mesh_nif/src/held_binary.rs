//! A binary of a process, held after the process has let go of it.

use rustler::{Binary, Encoder, OwnedEnv};

pub struct HeldBinary {
    /// Refers to the binary's bytes until it is dropped.
    _env: OwnedEnv,
    start: *const u8,
    size: usize,
}

// SAFETY: the bytes of a binary never change, and `_env`, which holds them, is only dropped, which any thread may do.
unsafe impl Send for HeldBinary {}

impl HeldBinary {
    /// Copies a binary of at most 64 bytes, and refers to a longer one.
    pub fn new(binary: &Binary<'_>) -> HeldBinary {
        let env = OwnedEnv::new();
        let (start, size) = env.run(|env| {
            // A copy of the term. Its bytes stay where they are: this environment is never garbage-collected.
            let held = binary.encode(env).decode::<Binary<'_>>().ok();
            held.map_or((std::ptr::null(), 0), |held| (held.as_ptr(), held.len()))
        });
        HeldBinary { _env: env, start, size }
    }
}

impl AsRef<[u8]> for HeldBinary {
    fn as_ref(&self) -> &[u8] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: `_env` holds the bytes, see `new`.
        unsafe { std::slice::from_raw_parts(self.start, self.size) }
    }
}
