//! Tests that need internals: a panic on request, a calendar clock that can be set, and TLS without HTTP.

mod crashes;
mod tls;
mod wall_clock;
