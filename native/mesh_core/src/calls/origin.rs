//! What the calls of one worker to one endpoint share.

use std::sync::Arc;

use super::bell::Bell;
use crate::config::OnDisconnect;
use crate::runtime::Budget;

/// What a gateway's configuration says of its calls.
#[derive(Clone)]
pub struct CallConfig {
    /// For queues that are longer than a small buffer.
    pub buffers: Arc<Budget>,
    pub on_disconnect: OnDisconnect,
}

pub struct Origin {
    pub bell: Bell,
    pub config: CallConfig,
}

impl Origin {
    pub fn new(config: &CallConfig) -> Arc<Origin> {
        Arc::new(Origin { bell: Bell::default(), config: config.clone() })
    }
}

#[cfg(test)]
impl Default for CallConfig {
    fn default() -> CallConfig {
        CallConfig { buffers: Budget::new(usize::MAX / 2), on_disconnect: OnDisconnect::Ignore }
    }
}
