//! What the nodes of a mesh have counted in the measured time.

use std::io;

use serde_json::{Value, json};

use crate::mesh;

/// Nothing for a proxy without nodes.
pub fn counters(path: &str) -> io::Result<Vec<Value>> {
    if path.is_empty() { Ok(Vec::new()) } else { mesh::stats(path) }
}

/// The connections of the first node to the others, and the requests of each of these.
pub fn between(before: &[Value], after: &[Value]) -> Value {
    let [Some(first_before), Some(first)] = [before.first(), after.first()] else {
        return Value::Null;
    };
    let grown = |name: &str| {
        let of = |stats: &Value| stats["total"][name].as_u64().unwrap_or(0);
        of(first) - of(first_before)
    };
    let received =
        |stats: &Value| stats["from_peers"]["bench.local"]["requests"].as_u64().unwrap_or(0);
    let others = before.iter().zip(after).skip(1);
    json!({
        "opened": grown("upstream_connections_opened"),
        "reused": grown("upstream_connections_reused"),
        "retries": grown("retries"),
        "requests": others.map(|(before, after)| received(after) - received(before)).collect::<Vec<_>>(),
    })
}
