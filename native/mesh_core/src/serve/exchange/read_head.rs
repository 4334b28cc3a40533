//! Reading response heads.

use mesh_wire::head::{self, Found, HeadScan};
use mesh_wire::method::Method;
use mesh_wire::response::{self, ResponseHead};

use super::state::State;
use crate::config::Limits;
use crate::error::Error;
use crate::runtime::{Buf, BufferPool};
use crate::upstream::transport::{Transport, fill};

/// Reads until there is a whole head, and hands it to `take`, once.
pub async fn read_head<T>(
    upstream: &impl Transport,
    received: &mut Buf,
    (limits, pool): (&Limits, &BufferPool),
    state: &State,
    method: Method,
    mut take: impl FnMut(&ResponseHead<'_, '_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let most = limits.head_bytes;
    // Endpoints are granted more fields than clients, within reason.
    let most_fields = limits.header_count.max(256);
    let mut look = |received: &mut Buf| -> Result<Option<T>, Error> {
        let mut storage = head::storage();
        let parsed = response::parse(received.filled(), &mut storage, most_fields, method)?;
        let Some(head) = parsed else { return Ok(None) };
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
            // Mostly a head comes whole, and the parser finds its end.
            if !looked && let Some(taken) = look(received)? {
                return Ok(taken);
            }
            looked = true;
            match scan.find(received.filled()) {
                Found::BareLf => return Err(Error::BadResponse("a line does not end with CRLF")),
                Found::Whole(_) => {
                    return look(received)?.ok_or(Error::BadResponse("the head is malformed"));
                }
                // Nobody is to wait for the rest of a response that is wrong already.
                Found::Partial { new_line: true } => {
                    let mut storage = head::storage();
                    response::parse(received.filled(), &mut storage, most_fields, method)?;
                }
                Found::Partial { new_line: false } => {}
            }
            if received.len() >= most || !received.make_room(most) {
                return Err(Error::BadResponse("the head is too long"));
            }
        }
        match fill(upstream, received, pool).await {
            Ok(n) if n > 0 => state.upstream_spoke.set(true),
            _ => return Err(Error::UpstreamClosed),
        }
    }
}
