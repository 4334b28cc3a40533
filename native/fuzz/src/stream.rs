//! All that a client sends on one connection, as requests by the book.

use crate::gateway::MOST_FIELDS;
use crate::model::{self, Framing};
use crate::reader::{self, Read};

/// A request with its body.
pub struct Message {
    pub head: model::Request,
    pub data: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

pub struct Stream {
    pub requests: Vec<Message>,
    /// It ends with something that is no request.
    pub wrong: bool,
}

/// What a client's bytes are by the book. `trusted`: it may ask for `https` without TLS.
pub fn read_stream(mut rest: &[u8], trusted: bool) -> Stream {
    let mut stream = Stream { requests: Vec::new(), wrong: false };
    loop {
        rest = &rest[reader::empty_lines(rest)..];
        let head = match reader::request_head(rest, MOST_FIELDS) {
            Read::Whole(head) => model::request(head),
            Read::Partial => return stream,
            Read::Wrong(why) => Err(why),
        };
        let Ok(head) = head else {
            stream.wrong = true;
            return stream;
        };
        rest = &rest[head.head.size..];
        // The gateway answers itself, and reads no body for that.
        let ends_here = head.max_forwards == Some(0) || (head.is_https() && !trusted);
        let mut message = Message { head, data: Vec::new(), trailers: Vec::new() };
        match message.head.framing {
            Framing::Length(length) if length > rest.len() as u64 => return stream,
            Framing::Length(length) => {
                let (data, next) = rest.split_at(length as usize);
                message.data = data.to_vec();
                rest = next;
            }
            Framing::Chunked if ends_here => return stream,
            Framing::Chunked => match reader::chunked(rest, false) {
                Read::Whole(body) => {
                    rest = &rest[body.size..];
                    if !model::names_fields(&message.head.head.fields) {
                        message.trailers = model::kept_trailers(&body);
                    }
                    message.data = body.data;
                }
                Read::Partial => return stream,
                Read::Wrong(_) => {
                    stream.wrong = true;
                    return stream;
                }
            },
            Framing::None | Framing::Close => {}
        }
        let keep_alive = message.head.keep_alive;
        if ends_here {
            if message.head.framing != Framing::None {
                return stream;
            }
        } else {
            stream.requests.push(message);
        }
        if !keep_alive {
            return stream;
        }
    }
}
