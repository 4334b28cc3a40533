//! Provides what a worker's event loop needs besides tokio: buffers, memory budgets, timers and minimum rates.

mod budget;
mod buffer;
mod min_rate;
mod timer;

pub use budget::{Budget, Share};
pub use buffer::{Buf, BufferPool, SMALL};
pub use min_rate::MinRate;
pub use timer::{Timer, deadline};
