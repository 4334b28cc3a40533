//! What goes wrong around a gateway, over real sockets: endpoints that refuse, hang, reset and come
//! back, clients that leave at every stage, limits, shutdowns. Each scene counts descriptors and
//! everything that the gateway says is open before and after: nothing may be left.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod descriptors;
mod endpoints;
mod handover;
mod limits;
mod lingering_close;
mod memory;
mod pool;
mod proxy_protocol;
mod shutdown;
mod task_pool;
mod timeouts;
mod tunnels;
mod upstreams;
