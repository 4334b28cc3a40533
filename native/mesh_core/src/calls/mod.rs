//! Calls: requests that a process of this VM answers, without a socket.
//!
//! The worker's side of a [`Call`] is a byte stream like any other ([`CallStream`]): it gets a request of
//! HTTP/1.1 and gives a response of HTTP/1.1, so that every check, limit and timer of an exchange applies. The
//! other side takes the request apart and writes the response, on the thread of the process.
//!
//! A worker and a process meet only in [`Call`]. No lock is held while one wakes the other.
//!
//! Whatever happens to a process, its reference of the call ends with [`Call::fail`]; whatever happens to a client,
//! the worker's stream is dropped. So neither side waits for the other for ever.

mod answer;
mod bell;
mod call;
mod desk;
mod dispatch;
mod head;
mod origin;
mod process;
mod queue;
mod response;
mod shared;
mod stream;

pub use answer::{Read, Taken, Write};
pub use call::Call;
pub(crate) use desk::Desk;
pub use dispatch::{Dispatch, DispatchersRef, MAX_WAITING};
pub use head::{CallHead, ClientVersion};
pub(crate) use origin::CallConfig;
pub use response::{BadHead, Framing};
pub use shared::Notice;
pub(crate) use shared::Place;
pub(crate) use stream::CallStream;
