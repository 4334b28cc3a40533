//! Upgrades: RFC 9110 section 7.8, RFC 6455 sections 1.3 and 4. Only a WebSocket is tunnelled, and
//! only after the endpoint's 101.

use crate::prelude::*;

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub fn cases() -> Vec<Case> {
    let mut cases = tunnels();
    cases.extend(asked());
    cases.extend(not_asked());
    cases
}

/// The client got a 101, then exactly these bytes.
fn tunnelled(bytes: &'static [u8]) -> Check {
    that(move |t| {
        let switched = t.responses.last().is_some_and(|r| r.status == 101);
        if switched && t.rest == bytes { Ok(()) } else { Err(t.describe()) }
    })
}

fn tunnels() -> Vec<Case> {
    let yes = |rest: &str| send(format!("{YES}{rest}"));
    vec![
        case("a tunnel carries bytes both ways", "RFC 6455 4.1", Must, get(ASK),
            tunnelled(b"up and back"))
            .script(vec![yes(""), Do::Echo])
            .answers(1)
            .then(Act::Send(b"up and back".to_vec()))
            .then(Act::Got(b"up and back".to_vec())),
        case("the handshake's fields arrive", "RFC 6455 4.2.1", Must, get(ASK),
            all_of(vec![tunnelled(b""), that(|t| {
                on_request(t.request()?, &[
                    Line("GET / HTTP/1.1"),
                    One("upgrade", "websocket"),
                    One("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                    One("sec-websocket-version", "13"),
                ])?;
                let connection = t.request()?.fields.one("connection").unwrap_or_default();
                if connection.eq_ignore_ascii_case("upgrade") { Ok(()) } else { Err(connection) }
            })]))
            .script(vec![yes("")]),
        case("the 101's fields arrive", "RFC 6455 4.2.2", Must, get(ASK),
            that(|t| match t.responses.last() {
                Some(r) if r.status == 101 => on_response(r, &[
                    One("upgrade", "websocket"),
                    In("connection", "upgrade"),
                    One("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                    Lacks("content-length"),
                    Lacks("transfer-encoding"),
                ]),
                _ => Err(t.describe()),
            })).script(vec![yes("")]),
        case("bytes that come with the 101", "RFC 6455 4.1", Must, get(ASK), tunnelled(b"hello"))
            .script(vec![yes("hello")]).answers(1).then(Act::Got(b"hello".to_vec())),
        case("bytes that come with the handshake", "RFC 6455 4.1", Should, get(ASK) + "early",
            tunnelled(b"early"))
            .script(vec![yes(""), Do::Echo]).answers(1).then(Act::Got(b"early".to_vec())),
        case("bytes that look like a request are none", "RFC 9110 7.8", Must,
            get(ASK) + &get_target("/2"),
            that(|t| if t.requests.len() == 1 { Ok(()) } else { Err(t.describe()) }))
            .script(vec![yes(""), Do::UntilClosed]),
        case("the client's end reaches the endpoint, and what it says then the client",
            "RFC 9110 7.8", Should, get(ASK), tunnelled(b"last words"))
            .script(vec![yes(""), Do::UntilClosed, send("last words")])
            .answers(1).then(Act::Fin).then(Act::Got(b"last words".to_vec())),
        case("the endpoint's end reaches the client", "RFC 9110 7.8", Must, get(ASK),
            all_of(vec![tunnelled(b"bye"), that(|t| match t.end {
                crate::support::client::End::Closed => Ok(()),
                _ => Err(t.describe()),
            })])).script(vec![yes("bye")]),
    ]
}

fn asked() -> Vec<Case> {
    let wants = |name: &str, section, fields: &str| {
        let (a, b) =
            ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
        case(name, section, Must, get(&format!("{fields}{a}{b}")), tunnelled(b""))
            .script(vec![send(YES)])
    };
    vec![
        wants("Connection: keep-alive, Upgrade", "RFC 6455 4.2.1",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
        wants("in any case", "RFC 6455 4.2.1", "connection: UPGRADE\r\nupgrade: WebSocket\r\n"),
        wants("in two Connection lines", "RFC 9110 5.3",
            "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"),
        case("a refusal is an ordinary answer", "RFC 9110 7.8", Must, get(ASK),
            gets(403, vec![Body(b"no"), Lacks("upgrade")]))
            .script(reply("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")),
        case("426 keeps its Upgrade from nobody", "RFC 9110 15.5.22", Should, get(ASK),
            gets(426, vec![]))
            .script(reply("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\
                           Connection: upgrade\r\nContent-Length: 0\r\n\r\n")),
    ]
}

fn not_asked() -> Vec<Case> {
    let drops = |name: &str, section, level, request: &str| {
        let looks = vec![Lacks("upgrade"), NotIn("connection", "upgrade")];
        case(name, section, level, request, passed(looks))
    };
    let unasked = |name: &str, request: &str, answer: &str| {
        case(name, "RFC 9110 7.8", Strict, request, not_believed()).script(reply(answer))
    };
    let old = format!("GET / HTTP/1.0\r\nHost: a.test\r\n{ASK}\r\n");
    vec![
        drops("Upgrade without Connection", "RFC 9110 7.8", Must, &get("Upgrade: websocket\r\n")),
        drops("Connection without Upgrade", "RFC 9110 7.6.1", Must,
            &get("Connection: Upgrade\r\n")),
        drops("h2c", "RFC 9113 3.1", Strict,
            &get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n")),
        drops("another protocol", "RFC 9110 7.8", Strict,
            &get("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n")),
        drops("a POST", "RFC 6455 4.1", Strict, &post(&format!("{ASK}Content-Length: 0\r\n"), "")
            .replacen("Content-Length: 0\r\n", "", 1)),
        drops("a GET with a body", "RFC 6455 4.1", Strict,
            &(get(&format!("{ASK}Content-Length: 2\r\n")) + "hi")),
        drops("in HTTP/1.0", "RFC 9110 7.8", Must, &old),
        unasked("a 101 that nobody asked for", &get(""), YES),
        unasked("a 101 to a POST", &post("Content-Length: 0\r\n", ""), YES),
        unasked("a 101 to HTTP/1.0", &old, YES),
        unasked("a 101 to another protocol than asked", &get(ASK),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        unasked("a 101 without Upgrade", &get(ASK),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"),
        unasked("a 101 to h2c", &get("Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        case("websocket among others becomes websocket alone", "RFC 9110 7.8", Strict,
            get("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nSec-WebSocket-Key: a\r\n"),
            passed(vec![One("upgrade", "websocket")])).ours(),
    ]
}
