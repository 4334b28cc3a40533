//! Bounds of an HTTP/2 connection, and the settings that its client is told.

use h2::server::Builder;

use crate::config::Limits;

/// RFC 9113 section 6.5.2 recommends no fewer than 100, and browsers' pages want no more. Every
/// bound on memory below is multiplied by it.
const MAX_STREAMS: u32 = 128;
/// What one upload may have under way: four times the protocol's own, enough for local networks.
const STREAM_WINDOW: u32 = 256 * 1024;
/// And all uploads of a connection together, however many streams it has. Whatever clients send and
/// endpoints do not take is kept in memory. A connection begins with the protocol's own, and gets
/// more with its first upload, as long as a quarter of `limits.buffer_bytes` lasts.
pub const FIRST_CONNECTION_WINDOW: u32 = 64 * 1024 - 1;
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What of a response waits here for a client that is slow to read, for each stream, as long as the
/// rest of `limits.buffer_bytes` lasts (see `queue`).
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset by the client before they were looked at (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that the client's own errors ended, over the life of a connection.
const MAX_ERRORS: usize = 1024;
/// By how many streams a client may give up more than it waits for: each has cost an endpoint a
/// request. A browser that leaves a page gives up dozens.
pub const MAX_ABANDONED: u32 = 256;

pub fn settings(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(FIRST_CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // Bounds the head as it is after decompression, and with it the number of CONTINUATION
        // frames (RFC 9113 section 10.5.1). Not to the limit itself: what h2 refuses nobody hears of.
        .max_header_list_size(
            u32::try_from(limits.head_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
        )
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERRORS))
        .enable_connect_protocol();
    builder
}
