//! Responses, right and wrong ones: RFC 9110 sections 6.4, 8.6 and 15, RFC 9112 sections 4, 6 and 8.
//! An endpoint that is wrong about its framing must not put an answer on the wrong request.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = right();
    cases.extend(bodiless());
    cases.extend(malformed());
    cases.extend(cut_off());
    cases.extend(beyond());
    cases
}

const OLD_GET: &str = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";

fn right() -> Vec<Case> {
    let answer = |name: &str, section, level, answer: &str, check| {
        case(name, section, level, get(""), check).script(reply(answer))
    };
    let until_close = vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\nhello"), Do::Close];
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let with_trailer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
                        X-Sum: 1\r\nContent-Length: 9\r\n\r\n";
    vec![
        answer("a length", "RFC 9112 6.3", Must, &ok("hello"),
            gets(200, vec![Body(b"hello"), One("content-length", "5")])),
        answer("the same length in two lines is one", "RFC 9110 8.6", Should,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\ncontent-length: 5\r\n\r\nhello",
            gets(200, vec![One("content-length", "5"), Body(b"hello"), One("x-a", "b")])).of_http1(),
        answer("the same length twice in a list is one", "RFC 9110 8.6", Should,
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
            gets(200, vec![One("content-length", "5"), Body(b"hello")])).of_http1(),
        answer("chunks", "RFC 9112 7.1", Must, chunks,
            gets(200, vec![Body(b"hello"), Lacks("content-length")])),
        answer("chunks with extensions", "RFC 9112 7.1.1", Must,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
            gets(200, vec![Body(b"hello")]))
            .of_endpoints().of_http1(),
        answer("chunks with a space before an extension", "RFC 9112 7.1.1", Must,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 ;a=b\r\nhello\r\n0 ;c\r\n\r\n",
            gets(200, vec![Body(b"hello")]))
            .of_endpoints().of_http1(),
        // No grammar has it, and servers on small devices send it.
        answer("chunk sizes in a field of fixed width", "RFC 9112 7.1", Should,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5   \r\nhello\r\n0   \r\n\r\n",
            gets(200, vec![Body(b"hello")]))
            .of_endpoints().of_http1(),
        answer("trailers, but not a length among them", "RFC 9110 6.5.1", Strict, with_trailer,
            gets(200, vec![Body(b"hello"), NoTrailer("content-length"), Lacks("x-sum")])),
        answer("a trailer", "RFC 9110 6.5.2", Should, with_trailer,
            gets(200, vec![Trailer("x-sum", "1")])).of_endpoints(),
        case("a body until close", "RFC 9112 6.3", Must, get(""),
            gets(200, vec![Body(b"hello")])).script(until_close.clone()),
        case("a body until close keeps the client's connection", "RFC 9112 9.3", Should, get(""),
            all_of(vec![gets(200, vec![One("transfer-encoding", "chunked")]), stays_open()]))
            .script(until_close.clone()).ours(),
        case("an empty body until close", "RFC 9112 6.3", Must, get(""),
            gets(200, vec![Body(b"")]))
            .script(vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\n"), Do::Close]),
        case("chunks for HTTP/1.0 lose their framing", "RFC 9112 6.1", Must, OLD_GET,
            all_of(vec![gets(200, vec![Body(b"hello"), Lacks("transfer-encoding")]), closes()]))
            .script(reply(chunks)),
        case("trailers are nothing for HTTP/1.0", "RFC 9112 7.1.2", Must, OLD_GET,
            gets(200, vec![Body(b"hello"), Lacks("transfer-encoding")]))
            .script(reply(with_trailer)),
        case("a body until close for HTTP/1.0", "RFC 9112 6.3", Must, OLD_GET,
            gets(200, vec![Body(b"hello"), Lacks("transfer-encoding")])).script(until_close),
        answer("an HTTP/1.0 endpoint", "RFC 9112 2.3", Must,
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            gets(200, vec![Line("HTTP/1.1 200 OK"), Body(b"hello")])),
        case("the version is the gateway's own, for HTTP/1.0 too", "RFC 9112 2.3", Must, OLD_GET,
            gets(200, vec![Line("HTTP/1.1 200 OK")])).ours(),
        answer("no reason phrase", "RFC 9112 4", Must,
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", gets(200, vec![Body(b"hi")])),
        answer("no reason phrase and no space", "RFC 9112 4", Should,
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", gets(200, vec![Body(b"hi")])),
        answer("a reason phrase of its own", "RFC 9112 4", Should,
            "HTTP/1.1 200 All is well\r\nContent-Length: 2\r\n\r\nhi",
            gets(200, vec![Line("HTTP/1.1 200 All is well")])).ours().of_endpoints().of_http1(),
        answer("a status nobody knows", "RFC 9110 15", Must,
            "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi", gets(299, vec![Body(b"hi")])),
        answer("an error's body", "RFC 9110 15.6", Must,
            "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nhi", gets(500, vec![Body(b"hi")])),
        answer("a missing Date is added", "RFC 9110 6.6.1", Should, &ok(""),
            gets(200, vec![Has("date")])),
        answer("a Date is left alone", "RFC 9110 6.6.1", Should,
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
            gets(200, vec![One("date", "Sun, 06 Nov 1994 08:49:37 GMT")])),
        answer("Server is left alone", "RFC 9110 10.2.4", Should,
            "HTTP/1.1 200 OK\r\nServer: mine\r\nContent-Length: 0\r\n\r\n",
            gets(200, vec![One("server", "mine")])).ours(),
        answer("bytes above 127 in a value", "RFC 9110 5.5", Should,
            "HTTP/1.1 200 OK\r\nX-A: \u{e9}\r\nContent-Length: 0\r\n\r\n",
            gets(200, vec![One("x-a", "\u{c3}\u{a9}")])),
        answer("a head of 40,000 bytes", "RFC 9110 5.4", Should,
            &format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nhi", "y".repeat(40_000)),
            gets(200, vec![Body(b"hi")])).ours(),
        answer("an upload refused before it was sent", "RFC 9110 15.5.14", Must,
            "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", gets(413, vec![])),
    ]
}

/// 204, 304, 1xx and the answer to HEAD have no body, whatever their fields say.
fn bodiless() -> Vec<Case> {
    let head = "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let then_next = |name: &str, section, request: &str, answer: &str, status: u16| {
        let request = request.to_string() + &get_target("/next");
        let check = that(move |t| {
            let finals = t.finals();
            match finals[..] {
                [first, second]
                    if first.status == status
                        && first.body.is_empty()
                        && second.body == b"/next"
                        && t.rest.is_empty() =>
                {
                    Ok(())
                }
                _ => Err(t.describe()),
            }
        });
        case(name, section, Must, request, check).script(reply(answer)).answers(2)
    };
    vec![
        then_next("204", "RFC 9110 15.3.5", &get(""), "HTTP/1.1 204 No\r\n\r\n", 204),
        then_next("304", "RFC 9110 15.4.5", &get(""), "HTTP/1.1 304 Same\r\nETag: \"a\"\r\n\r\n", 304),
        then_next("304 with a length", "RFC 9110 15.4.5", &get(""),
            "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", 304),
        then_next("304 with chunked", "RFC 9112 6.1", &get(""),
            "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
        case("304 keeps its length", "RFC 9110 8.6", Should, get(""),
            gets(304, vec![One("content-length", "5"), Body(b"")]))
            .script(reply("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n")),
        case("204 loses its length", "RFC 9110 8.6", Strict, get(""),
            gets(204, vec![Lacks("content-length"), Lacks("transfer-encoding")]))
            .script(reply("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n")),
        case("204 is not chunked", "RFC 9112 6.1", Strict, get(""),
            gets(204, vec![Lacks("content-length"), Lacks("transfer-encoding")]))
            .script(reply("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n")),
        case("HEAD keeps the length", "RFC 9110 9.3.2", Should, head,
            gets(200, vec![One("content-length", "500"), Body(b"")]))
            .script(reply("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")),
        case("HEAD with chunked", "RFC 9112 6.3", Must, head, gets(200, vec![Body(b"")]))
            .script(reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")),
        case("HEAD without a length leaves the connection open", "RFC 9112 6.3", Must, head,
            all_of(vec![gets(200, vec![]), stays_open()]))
            .script(reply("HTTP/1.1 200 OK\r\n\r\n")),
        // Only a GET follows, so that the client knows which of the two has a body.
        case("HEAD, and bytes all the same", "RFC 9110 9.3.2", Must, head,
            gets(200, vec![Body(b"")]))
            .script(reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")),
        case("HEAD and HTTP/1.0", "RFC 9110 9.3.2", Must,
            "HEAD / HTTP/1.0\r\nHost: a.test\r\n\r\n", gets(200, vec![Body(b"")]))
            .script(reply("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")),
    ]
}

fn malformed() -> Vec<Case> {
    let wrong = |name: &str, level, answer: &[u8]| {
        let script = vec![Do::Body, send(answer), Do::Close];
        // Twice, since a GET that gets nothing on a kept connection may be sent again.
        let case = case(name, "RFC 9112 4", level, get(""), not_believed());
        case.script(script.clone()).script(script)
    };
    let fields = |name: &str, level, fields: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello");
        let script = vec![Do::Body, send(answer), Do::Close];
        case(name, "RFC 9112 6.3", level, get(""), not_believed()).script(script)
    };
    let giant = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'y'; 300_000], b"\r\n\r\n"].concat();
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(6_000));
    vec![
        wrong("nothing", Must, b""),
        wrong("no HTTP", Must, b"hello\r\n\r\n"),
        wrong("HTTP/0.9", Must, b"<html>hello</html>"),
        wrong("another protocol", Must, b"SIP/2.0 200 OK\r\n\r\n"),
        wrong("HTTP/2 as text", Strict, b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        wrong("no status", Must, b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        wrong("a status of two digits", Must, b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        wrong("a status of four digits", Must, b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        wrong("a status below 100", Must, b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        wrong("half a head", Must, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
        wrong("a bare LF", Strict, b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        wrong("a bare CR in a value", Must, b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n"),
        wrong("a NUL in a value", Must, b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        wrong("a NUL in the reason", Strict, b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n")
            .of_endpoints().of_http1(),
        wrong("a space before a colon", Strict, b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n"),
        wrong("a fold", Strict, b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        wrong("a line without a colon", Strict, b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n"),
        wrong("an empty field name", Strict, b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n"),
        wrong("a giant head", Strict, &giant),
        wrong("fields without end", Strict, many.as_bytes()),
        fields("length and chunks", Strict, "Content-Length: 5\r\nTransfer-Encoding: chunked")
            .of_endpoints(),
        case("length and chunks, and both could be right", "RFC 9112 6.3", Strict, get(""),
            not_believed())
            .script(reply("HTTP/1.1 200 OK\r\nContent-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n\
                           5\r\nhello\r\n0\r\n\r\n")).of_endpoints(),
        fields("two lengths", Must, "Content-Length: 5\r\nContent-Length: 6"),
        fields("a list of lengths", Must, "Content-Length: 5, 6"),
        fields("a list of lengths with an empty member", Strict, "Content-Length: 5,"),
        fields("two equal lengths and another", Must, "Content-Length: 5, 5\r\nContent-Length: 6"),
        fields("more members of Connection than fields there are", Strict,
            &format!("Content-Length: 5\r\nConnection: {}close", "a, ".repeat(64))).of_http1(),
        fields("a negative length", Must, "Content-Length: -5"),
        fields("a length with a sign", Must, "Content-Length: +5"),
        fields("a length that is no number", Must, "Content-Length: five"),
        fields("an empty length", Must, "Content-Length:"),
        fields("a length above 64 bits", Must, "Content-Length: 18446744073709551621"),
        fields("chunked twice", Strict, "Transfer-Encoding: chunked, chunked").of_endpoints(),
        fields("chunked is not last", Strict, "Transfer-Encoding: chunked, gzip")
            .of_endpoints(),
        fields("an unknown coding", Strict, "Transfer-Encoding: xyz").of_endpoints(),
        fields("an unknown coding and a length", Strict, "Transfer-Encoding: x\r\nContent-Length: 5")
            .of_endpoints(),
        case("chunks from HTTP/1.0", "RFC 9112 6.1", Strict, get(""), not_believed())
            .script(reply("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           5\r\nhello\r\n0\r\n\r\n")).of_endpoints().of_http1(),
    ]
}

/// What ends before its time must not look whole.
fn cut_off() -> Vec<Case> {
    let cut = |name: &str, section, level, request: &str, answer: &str, end: Do| {
        case(name, section, level, request, torn()).script(vec![Do::Body, send(answer), end])
    };
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let bad_chunk = |name: &str, level, body: &str| {
        cut(name, "RFC 9112 7.1", level, &get(""), &chunked(body), Do::Close)
    };
    vec![
        cut("a short body", "RFC 9112 8", Must, &get(""), short, Do::Close),
        cut("a short body, reset", "RFC 9112 8", Must, &get(""), short, Do::Reset),
        cut("no body at all", "RFC 9112 8", Must, &get(""),
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", Do::Close),
        cut("chunks that end early", "RFC 9112 8", Must, &get(""), &chunked("5\r\nhello\r\n"),
            Do::Close),
        cut("half a chunk", "RFC 9112 8", Must, &get(""), &chunked("5\r\nhel"), Do::Close),
        cut("no empty line after the last chunk", "RFC 9112 8", Must, &get(""),
            &chunked("5\r\nhello\r\n0\r\n"), Do::Close),
        cut("a body until close that is reset", "RFC 9112 8", Strict, &get(""),
            "HTTP/1.1 200 OK\r\n\r\nhello", Do::Reset),
        bad_chunk("a chunk size that is no number", Must, "5\r\nhello\r\nxyz\r\n"),
        bad_chunk("a chunk with a sign", Must, "+5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a chunk that is too long", Must, "5\r\nhelloX\r\n0\r\n\r\n"),
        bad_chunk("a chunk size above 64 bits", Must, "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a bare LF in the chunks", Strict, "5\nhello\n0\n\n"),
        bad_chunk("a NUL in a trailer", Strict, "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n"),
        case("HTTP/1.0 sees a broken chunked body break off", "RFC 9112 8", Strict, OLD_GET,
            that(|t| match t.end {
                crate::support::client::End::Reset => Ok(()),
                _ if t.finals().iter().all(|r| r.status >= 500) => Ok(()),
                _ => Err(t.describe()),
            })).script(vec![Do::Body, send(chunked("5\r\nhello\r\n")), Do::Close]),
    ]
}

/// Bytes after the end of a response belong to nobody: not to this client, and not to the next.
fn beyond() -> Vec<Case> {
    let more = |name: &str, answer: &str, status| {
        let answer = format!("{answer}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        let check = that(move |t| {
            let bodies: Vec<&[u8]> = t.finals().iter().map(|r| r.body.as_slice()).collect();
            let first = t.finals().first().map(|r| r.status);
            let right = bodies.last() == Some(&b"/next".as_slice()) && bodies.len() == 2;
            if right && first == Some(status) && t.rest.is_empty() {
                return Ok(());
            }
            Err(t.describe())
        });
        // The second request goes out only after the first answer, as a careful client's would.
        case(name, "RFC 9112 9.2", Must, get(""), check)
            .script(reply(answer))
            .answers(1)
            .then(Act::Send(get_target("/next").into_bytes()))
            .answers(2)
    };
    vec![
        more("a second response behind a length", &ok("hello"), 200),
        more("a second response behind a 204", "HTTP/1.1 204 No\r\n\r\n", 204),
        more("a second response behind a 304", "HTTP/1.1 304 Same\r\n\r\n", 304),
        more("a second response behind the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200),
        more("a body longer than its length", &(ok("hello") + " and more"), 200),
        more("a 304 with a body", "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\nhello", 304),
    ]
}
