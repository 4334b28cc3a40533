//! Tests that need internals: a panic on request, and a calendar clock that can be set.

mod crashes;
mod wall_clock;
