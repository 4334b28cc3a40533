//! Defines the limits of an HTTP/2 connection, and the settings sent to its client.

use h2::server::Builder;

use crate::config::Limits;

/// RFC 9113 section 6.5.2 recommends at least 100, and browsers need no more. Each memory limit below is
/// multiplied by this.
const MAX_STREAMS: u32 = 128;
/// Window of one upload: four times the protocol's default, enough for local networks.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of all uploads of a connection. Data that endpoints do not accept stays in memory. A connection
/// begins with the protocol's default and gets more with its first upload, while a quarter of
/// `limits.buffer_bytes` lasts.
pub const FIRST_CONNECTION_WINDOW: u32 = 64 * 1024 - 1;
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of a response waits for a slow client per stream, while the rest of `limits.buffer_bytes` lasts
/// (see `queue`).
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the client reset before they were accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that ended by the client's errors, over the life of a connection.
const MAX_ERRORS: usize = 1024;
/// How many more streams a client may reset early than wait for. Each has cost an endpoint a request. A
/// browser that leaves a page resets dozens.
pub const MAX_ABANDONED: u32 = 256;

pub fn settings(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(FIRST_CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // Bounds the decompressed head, and with it the number of CONTINUATION frames (RFC 9113 section
        // 10.5.1). Twice the limit, because what h2 rejects is neither counted nor answered by the gateway.
        .max_header_list_size(
            u32::try_from(limits.head_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
        )
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERRORS))
        .enable_connect_protocol();
    builder
}
