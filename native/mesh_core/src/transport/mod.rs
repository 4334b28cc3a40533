//! Byte streams: sockets, TLS over them, and the functions that read and write any of them.

mod byte_stream;
mod cork;
mod tls;

pub use byte_stream::{
    KEEPALIVE, KEEPALIVE_HALF_CLOSED, Transport, fill, fill_early, finish, poll_fill,
    poll_fill_long, poll_write, write_all, write_now,
};
pub use cork::Cork;
pub use tls::{Side as TlsSide, TlsSocket};
