//! Chains in which one parser would see one request and the next parser two. Whatever the gateway
//! makes of the first, the marked second must never reach the endpoint as a request of its own, and
//! nothing may be answered out of step. RFC 9112 sections 11.1 and 11.2.

use crate::prelude::*;

/// What an attacker wants the endpoint to take for a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";

pub fn cases() -> Vec<Case> {
    let mut cases = attacks();
    cases.extend(honest());
    cases
}

/// Either refused, or whatever follows is treated as the body that it is.
fn never_hidden() -> Check {
    that(|t| {
        if t.requests.iter().any(|r| r.target == "/hidden") || t.malformed.is_some() {
            return Err(format!("the hidden request got through; {}", t.describe()));
        }
        let finals = t.finals();
        let in_step = match finals[..] {
            [] => t.closed,
            [_] => true,
            _ => false,
        };
        if in_step { Ok(()) } else { Err(format!("out of step; {}", t.describe())) }
    })
}

// Others may go by Transfer-Encoding alone where both are given, if they close afterwards
// (RFC 9112 section 6.1); what counts for them is that nothing hidden gets through.
fn attacks() -> Vec<Case> {
    let attack = |name: &str, level, fields: &str, before: &str| {
        let bytes = post(&format!("{fields}\r\n"), before) + HIDDEN;
        case(name, "RFC 9112 11.2", level, bytes, all_of(vec![never_hidden(), if_own(refused(&[400, 501]), anything())]))
    };
    let lines = |name: &str, level, bytes: String| {
        case(name, "RFC 9112 11.2", level, bytes, all_of(vec![never_hidden(), if_own(refused(&[400, 501]), anything())]))
    };
    let length = HIDDEN.len();
    vec![
        attack("CL.TE", Must, "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
        attack("CL.TE with an empty body", Must,
            &format!("Content-Length: {}\r\nTransfer-Encoding: chunked", 5 + length), "0\r\n\r\n"),
        attack("TE.CL", Must, "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "5e\r\nGET /x HTTP/1.1\r\n"),
        attack("TE.TE, one hidden by a case", Must,
            "Transfer-Encoding: chunked\r\nTransfer-encoding: x", "0\r\n\r\n"),
        attack("TE.TE, one hidden by a fold", Must,
            "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE with a tab before the value and a length", Must,
            "Transfer-Encoding:\tchunked\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE with a vertical tab", Must,
            "Transfer-Encoding:\x0bchunked\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE with a space before its colon", Must,
            "Transfer-Encoding : chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE behind a bare CR", Must,
            "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n").ours(),
        attack("TE behind a bare LF", Must,
            "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE in quotes", Must,
            "Transfer-Encoding: \"chunked\"\r\nContent-Length: 5", "0\r\n\r\n"),
        attack("TE identity and a length", Must,
            &format!("Transfer-Encoding: identity\r\nContent-Length: {length}"), ""),
        attack("TE named in Connection, with a length", Must,
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n"),
        attack("two lengths, the first short", Must, "Content-Length: 0\r\nContent-Length: 42", ""),
        attack("two lengths, the second short", Must, "Content-Length: 42\r\nContent-Length: 0", ""),
        attack("a length list", Must, "Content-Length: 0, 42", ""),
        attack("a length with a plus", Must, "Content-Length: +42", ""),
        attack("a length with a minus", Must, "Content-Length: -0", ""),
        attack("a length above 64 bits that wraps to zero", Must,
            "Content-Length: 18446744073709551616", ""),
        attack("a length with a space before its colon", Must, "Content-Length : 42", ""),
        attack("a length with a NUL before its colon", Must, "Content-Length\0: 42", ""),
        attack("a length with a trailing comma", Must, "Content-Length: 0,", ""),
        lines("a request in a folded line", Must,
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n {HIDDEN}")),
        lines("a bare LF, LF ends the head for some", Strict,
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\n\n{HIDDEN}")),
        lines("CR LF LF ends the head for some", Strict,
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\n{HIDDEN}")),
        lines("a NUL ends the value for some", Must,
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\0\r\n\r\n{HIDDEN}")).ours(),
        lines("HTTP/1.0 with TE", Must,
            format!("POST / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\
                     Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        lines("HTTP/1.0 with both", Must,
            format!("POST / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\
                     Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{HIDDEN}")),
        lines("HTTP/0.9 in front", Must, format!("GET /\r\n\r\n{HIDDEN}")).ours(),
        lines("a CONNECT in front", Must, format!("CONNECT a.test HTTP/1.1\r\n\r\n{HIDDEN}")).ours(),
    ]
}

/// Chains that are right, and must be taken apart just so.
fn honest() -> Vec<Case> {
    let hidden_body = format!("Content-Length: {}\r\n", HIDDEN.len());
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let hides = |name: &str, fields: &str, body: &str| {
        case(name, "RFC 9112 6.3", Must, post(fields, body) + &get_target("/next"),
            all_of(vec![in_step(&[(200, "/"), (200, "/next")]), targets(&["/", "/next"])]))
            .answers(2)
    };
    let get_body = "GET /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
    vec![
        hides("a request as a body with a length", &hidden_body, HIDDEN),
        hides("a request as a chunk", "Transfer-Encoding: chunked\r\n", &chunk),
        hides("a request in a body, TE in capitals", "TRANSFER-ENCODING: Chunked\r\n", &chunk),
        case("a body of GET is not the next request", "RFC 9110 9.3.1", Must,
            get_body.to_string() + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/1"), (200, "/2")]), targets(&["/1", "/2"])])).answers(2),
        case("after a refusal nothing is read on", "RFC 9112 11.2", Must,
            get_target("/1") + "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: x\r\n\r\n" + HIDDEN,
            all_of(vec![in_step(&[(200, "/1"), (400, "")]), targets(&["/1"])])).answers(2),
        case("a 404 with a body takes its body along", "RFC 9112 9.3", Must,
            format!("POST /x HTTP/1.1\r\nHost: b.test\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
                HIDDEN.len()) + &get_target("/2"),
            that(|t| {
                let hidden = t.requests.iter().any(|r| r.target == "/hidden");
                if hidden || t.finals().first().map(|r| r.status) != Some(404) {
                    return Err(t.describe());
                }
                Ok(())
            })).ours(),
        case("after an answer before the body, the body is no request", "RFC 9112 9.6", Must,
            post(&format!("Content-Length: {}\r\n", HIDDEN.len()), &HIDDEN[..10]),
            all_of(vec![never_hidden(), gets(401, vec![])]))
            .script(vec![send("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), Do::UntilClosed])
            .answers(1)
            .then(Act::Send(HIDDEN.as_bytes()[10..].to_vec())),
        case("Expect and no body, then the next", "RFC 9110 10.1.1", Must,
            post("Expect: 100-continue\r\nContent-Length: 5\r\n", "") ,
            all_of(vec![never_hidden(), gets(417, vec![])]))
            .script(vec![send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), Do::UntilClosed])
            .answers(1)
            .then(Act::Send(HIDDEN.as_bytes().to_vec()))
            .ours(),
        case("an upgrade that is refused leaves HTTP behind it", "RFC 9110 7.8", Should,
            get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Version: 13\r\n") + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/"), (200, "/2")]), targets(&["/", "/2"])])).answers(2),
    ]
}
