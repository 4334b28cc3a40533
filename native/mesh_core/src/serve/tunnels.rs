//! Tracks the open tunnels of one worker, and closes them during a drain.

use std::cell::Cell;

use tokio::sync::Notify;

#[derive(Default)]
pub struct Tunnels {
    pub open: Cell<usize>,
    pub close: Notify,
    pub closing: Cell<bool>,
}

/// Counts a tunnel as open until dropped.
pub struct OpenTunnel<'w>(&'w Tunnels);

impl Tunnels {
    /// `None` once tunnels are being closed.
    pub fn open(&self) -> Option<OpenTunnel<'_>> {
        if self.closing.get() {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(OpenTunnel(self))
    }
}

impl OpenTunnel<'_> {
    /// Waits until this tunnel must end because the gateway stops.
    pub async fn close_requested(&self) {
        self.0.close.notified().await;
    }
}

impl Drop for OpenTunnel<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
