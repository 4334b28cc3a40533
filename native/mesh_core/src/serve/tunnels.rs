//! The open tunnels of one worker, and how a drain closes them.

use std::cell::Cell;

use tokio::sync::Notify;

/// The tunnels of one worker.
#[derive(Default)]
pub struct Tunnels {
    pub open: Cell<usize>,
    pub close: Notify,
    pub closing: Cell<bool>,
}

/// A tunnel, counted while it is open.
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
    /// Waits until this tunnel is to end, since the gateway stops.
    pub async fn told_to_close(&self) {
        self.0.close.notified().await;
    }
}

impl Drop for OpenTunnel<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
