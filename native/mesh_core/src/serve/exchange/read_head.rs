//! Reads response heads.

use mesh_wire::head::{self, HeadEnd, HeadScan};
use mesh_wire::method::Method;
use mesh_wire::response::{self, ResponseHead};

use super::state::ExchangeState;
use crate::config::Limits;
use crate::error::Error;
use crate::runtime::{Buf, BufferPool};
use crate::transport::{Transport, fill};

/// Reads a complete head and passes it to `take` once.
pub async fn read_head<T>(
    upstream: &impl Transport,
    received: &mut Buf,
    (limits, pool): (&Limits, &BufferPool),
    state: &ExchangeState,
    method: Method,
    mut take: impl FnMut(&ResponseHead<'_, '_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let max = limits.head_bytes;
    // Endpoints may send more fields than clients, within reason.
    let max_fields = limits.header_count.max(256);
    let mut look = |received: &mut Buf| -> Result<Option<T>, Error> {
        let mut storage = head::storage();
        let parsed = response::parse(received.filled(), &mut storage, max_fields, method)?;
        let Some(head) = parsed else { return Ok(None) };
        if state.to_peer() && head.is_refusal_of_peer() {
            return Err(Error::RefusedByPeer);
        }
        if head.info.status >= 200 || head.info.status == 101 {
            state.stopwatch.response_head_read();
        }
        let taken = take(&head)?;
        if head.info.status >= 200 {
            state.response_deadline.set(None);
        }
        let size = head.size();
        received.consume(size);
        Ok(Some(taken))
    };
    let mut scan = HeadScan::default();
    let mut looked = false;
    loop {
        if !received.is_empty() {
            // Most heads arrive complete; then the parser finds the end.
            if !looked && let Some(taken) = look(received)? {
                return Ok(taken);
            }
            looked = true;
            match scan.find(received.filled()) {
                HeadEnd::BareLf => return Err(Error::BadResponse("a line does not end with CRLF")),
                HeadEnd::Whole(_) => {
                    return look(received)?.ok_or(Error::BadResponse("the head is malformed"));
                }
                // An invalid response fails before the rest of it arrives.
                HeadEnd::Partial { new_line: true } => {
                    let mut storage = head::storage();
                    response::parse(received.filled(), &mut storage, max_fields, method)?;
                }
                HeadEnd::Partial { new_line: false } => {}
            }
            if received.len() >= max || !received.make_room(max) {
                return Err(Error::BadResponse("the head is too long"));
            }
        }
        match fill(upstream, received, pool).await {
            Ok(n) if n > 0 => state.upstream_spoke.set(true),
            _ => return Err(Error::UpstreamClosed),
        }
    }
}
