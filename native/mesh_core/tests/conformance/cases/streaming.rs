//! Nothing waits for the whole of a message: RFC 9112 sections 6 and 7, RFC 9110 section 3.3.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    const BIG: usize = 3_000_000;
    let big: Vec<u8> = (0..BIG).map(|i| (i % 251) as u8).collect();
    let chunked: Vec<u8> = big
        .chunks(70_001)
        .flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let with_length = format!("Content-Length: {BIG}\r\n");
    let same_up = {
        let big = big.clone();
        move || {
            let big = big.clone();
            that(move |t| if t.request()?.body == big { Ok(()) } else { Err("it differs".into()) })
        }
    };
    let same_down = {
        let big = big.clone();
        move || {
            let big = big.clone();
            that(move |t| if t.answer()?.body == big { Ok(()) } else { Err("it differs".into()) })
        }
    };
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let tiny_chunks = "1\r\nx\r\n".repeat(20_000) + "0\r\n\r\n";
    vec![
        case("the first half of an answer arrives before the second is there", "RFC 9112 6", Must,
            get(""), gets(200, vec![Body(b"firstsecond")]))
            .script(vec![
                Do::Body,
                send("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst"),
                Do::Gate("second"),
                send("second"),
            ])
            .then(Act::Got(b"first".to_vec()))
            .then(Act::Open("second")),
        case("an event at a time", "RFC 9112 7.1", Must, get("Accept: text/event-stream\r\n"),
            gets(200, vec![Body(b"data: 1\n\ndata: 2\n\n")]))
            .script(vec![
                Do::Body,
                send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"),
                Do::Gate("more"),
                send("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
            ])
            .then(Act::Got(b"data: 1\n\n".to_vec()))
            .then(Act::Open("more")),
        case("an event at a time, until close", "RFC 9112 6.3", Must, get(""),
            gets(200, vec![Body(b"data: 1\n\ndata: 2\n\n")]))
            .script(vec![
                Do::Body,
                send("HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n"),
                Do::Gate("more"),
                send("data: 2\n\n"),
                Do::Close,
            ])
            .then(Act::Got(b"data: 1\n\n".to_vec()))
            .then(Act::Open("more")),
        case("the head of an answer arrives before its body", "RFC 9112 6", Must, get(""),
            gets(200, vec![Body(b"hello")]))
            .script(vec![
                Do::Body,
                send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                Do::Gate("body"),
                send("hello"),
            ])
            .then(Act::Got(b"\r\n\r\n".to_vec()))
            .then(Act::Open("body")),
        case("an upload arrives as it is sent", "RFC 9112 6", Should,
            post("Content-Length: 10\r\n", "first"), passed(vec![Body(b"firstother")]))
            .then(Act::Seen(b"first".to_vec()))
            .then(Act::Send(b"other".to_vec())).ours(),
        case("a chunk arrives as it is sent", "RFC 9112 7.1", Should,
            post("Transfer-Encoding: chunked\r\n", "5\r\nfirst\r\n"),
            passed(vec![Body(b"firstother")]))
            .then(Act::Seen(b"first".to_vec()))
            .then(Act::Send(b"5\r\nother\r\n0\r\n\r\n".to_vec())).ours(),
        case("half a chunk arrives as it is sent", "RFC 9112 7.1", Should,
            post("Transfer-Encoding: chunked\r\n", "A\r\nfirst"),
            passed(vec![Body(b"firstother")]))
            .then(Act::Seen(b"first".to_vec()))
            .then(Act::Send(b"other\r\n0\r\n\r\n".to_vec())).ours(),
        case("an answer overtakes its upload", "RFC 9112 9.3", Must,
            post("Content-Length: 10\r\n", "first"), gets(200, vec![Body(b"early")]))
            .script(vec![send(ok("early")), Do::UntilClosed]).ours(),
        case("both ways at once", "RFC 9112 7.1", Should,
            post("Transfer-Encoding: chunked\r\n", "5\r\nask 1\r\n"),
            gets(200, vec![Body(b"answer 1answer 2")]))
            .script(vec![
                Do::Take(10),
                send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nanswer 1\r\n"),
                Do::Body,
                send("8\r\nanswer 2\r\n0\r\n\r\n"),
            ])
            .then(Act::Got(b"answer 1".to_vec()))
            .then(Act::Send(b"5\r\nask 2\r\n0\r\n\r\n".to_vec())).ours(),
        case("a head that arrives in two halves", "RFC 9112 2.2", Must, "GET / HT",
            passed(vec![Line("GET / HTTP/1.1")]))
            .then(Act::Send(b"TP/1.1\r\nHost: a.te".to_vec()))
            .then(Act::Send(b"st\r\n\r\n".to_vec())),
        case("a large upload with a length", "RFC 9112 6.2", Must,
            [post(&with_length, "").as_bytes(), &big].concat(), same_up()).ours(),
        case("a large upload in chunks", "RFC 9112 7.1", Must,
            [post("Transfer-Encoding: chunked\r\n", "").as_bytes(), &chunked].concat(),
            same_up()).ours(),
        case("an upload in tiny chunks", "RFC 9112 7.1", Must,
            post("Transfer-Encoding: chunked\r\n", &tiny_chunks),
            that(|t| {
                let body = &t.request()?.body;
                let right = body.len() == 20_000 && body.iter().all(|b| *b == b'x');
                if right { Ok(()) } else { Err(format!("{} bytes", body.len())) }
            })).ours(),
        case("a large download with a length", "RFC 9112 6.2", Must, get(""), same_down())
            .script(reply([head(&with_length), big.clone()].concat())),
        case("a large download in chunks", "RFC 9112 7.1", Must, get(""), same_down())
            .script(reply([head("Transfer-Encoding: chunked\r\n"), chunked.clone()].concat())),
        case("a large download until close", "RFC 9112 6.3", Must, get(""), same_down())
            .script(vec![Do::Body, send([head(""), big.clone()].concat()), Do::Close]),
        case("a large download in chunks for HTTP/1.0", "RFC 9112 6.1", Must,
            "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", same_down())
            .script(reply([head("Transfer-Encoding: chunked\r\n"), chunked].concat())),
        case("a download in tiny chunks", "RFC 9112 7.1", Must, get(""),
            that(|t| {
                let right = t.answer()?.body.len() == 20_000;
                if right { Ok(()) } else { Err(t.describe()) }
            }))
            .script(reply([head("Transfer-Encoding: chunked\r\n"), tiny_chunks.into_bytes()].concat())),
    ]
}
