//! A second opinion on what the gateway forwards, from a parser that others wrote and that shares
//! no line with httparse: kawa, the one of the Sōzu proxy.

use kawa::{Block, Buffer, Kawa, Kind, SliceBuffer, StatusLine, Store, Version, h1};

pub struct Message {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub is_1_1: bool,
    pub host: Vec<u8>,
    /// Without `Host`, `Cookie` and repeated lengths, which kawa puts elsewhere.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub size: usize,
}

/// kawa knows ASCII only, and no tabs in cookies; of anything else it is not asked its opinion.
pub fn has_opinion(head: &[u8]) -> bool {
    head.is_ascii() && !head.contains(&b'\t')
}

/// Reads the one request at the front of `bytes`.
pub fn read(bytes: &[u8]) -> Result<Message, String> {
    let mut storage = bytes.to_vec();
    let mut buffer = Buffer::new(SliceBuffer(&mut storage));
    buffer.fill(bytes.len());
    let mut kawa = Kawa::new(Kind::Request, buffer);
    h1::parse(&mut kawa, &mut h1::NoCallbacks);
    if !kawa.is_terminated() {
        return Err(format!("{:?}", kawa.parsing_phase));
    }
    let data = |store: &Store| store.data_opt(bytes).unwrap_or_default().to_vec();
    let StatusLine::Request { version, method, uri, authority, .. } = &kawa.detached.status_line
    else {
        return Err("no request line".to_string());
    };
    let mut message = Message {
        method: data(method),
        target: data(uri),
        is_1_1: matches!(version, Version::V11),
        host: data(authority),
        fields: Vec::new(),
        trailers: Vec::new(),
        body: Vec::new(),
        size: kawa.storage.head,
    };
    let mut in_head = true;
    for block in &kawa.blocks {
        match block {
            Block::Header(pair) if !pair.is_elided() => {
                let list = if in_head { &mut message.fields } else { &mut message.trailers };
                list.push((data(&pair.key), data(&pair.val)));
            }
            Block::Chunk(chunk) => message.body.extend(data(&chunk.data)),
            Block::Flags(flags) if flags.end_header => in_head = false,
            _ => {}
        }
    }
    Ok(message)
}
