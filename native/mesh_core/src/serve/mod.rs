//! Serves clients: workers accept connections, read requests and forward them.

mod accept;
mod accounting;
mod checkout;
mod client_limit;
mod drain;
mod exchange;
mod h2;
mod http1;
mod listener;
mod listening;
mod mesh_port;
mod peers;
mod reply;
mod run;
mod shared;
mod task_pool;
mod tunnel;
mod tunnels;
mod worker;

pub use listener::{OpenError, bind_all, bind_rest, listener_address};
pub use listening::{Inherited, Listening};
pub use mesh_port::{MeshInfo, MeshPort};
pub use run::{WorkerError, run_worker};
pub use shared::{Phase, Shared};
