//! Tests that need to reach inside: a panic on request, and a clock that can be put wrong.

mod crashes;
mod wall_clock;
