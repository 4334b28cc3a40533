//! How long connections last: RFC 9112 sections 9.3 to 9.6, RFC 9110 section 7.6.1.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = lasting();
    cases.extend(pipelines());
    cases
}

fn lasting() -> Vec<Case> {
    let of = |name: &str, section, level, request: &str, check| {
        case(name, section, level, request, all_of(vec![gets(200, vec![]), check]))
    };
    let old = |fields: &str| format!("GET / HTTP/1.0\r\nHost: a.test\r\n{fields}\r\n");
    let says = |want: &'static str| {
        that(move |t| {
            let said = t.answer()?.fields.all("connection").join(",").to_ascii_lowercase();
            if said == want { Ok(()) } else { Err(format!("Connection: {said:?}")) }
        })
    };
    vec![
        of("HTTP/1.1 stays open", "RFC 9112 9.3", Should, &get(""), stays_open()),
        of("HTTP/1.1 keeps open without a Connection field", "RFC 9112 9.3", Should, &get(""), says("")).ours(),
        of("close closes", "RFC 9112 9.6", Must, &get("Connection: close\r\n"), closes()),
        of("close is announced", "RFC 9112 9.6", Should, &get("Connection: close\r\n"), says("close")),
        of("close among others", "RFC 9112 9.6", Must, &get("Connection: x, CLOSE\r\n"), closes()),
        of("close in a second line", "RFC 9112 9.6", Must,
            &get("Connection: x\r\nConnection: close\r\n"), closes()),
        of("close beats keep-alive", "RFC 9112 9.3", Must,
            &get("Connection: keep-alive, close\r\n"), closes()),
        of("HTTP/1.0 closes", "RFC 9112 9.3", Must, &old(""), closes()),
        of("HTTP/1.0 with keep-alive stays", "RFC 9112 9.3", Should,
            &old("Connection: keep-alive\r\n"), stays_open()).ours(),
        of("HTTP/1.0 with keep-alive is told that it stays", "RFC 9112 9.3", Must, &old("Connection: keep-alive\r\n"),
            one_of(vec![says("keep-alive"), closes()])),
        of("HTTP/1.0 with both closes", "RFC 9112 9.3", Must,
            &old("Connection: keep-alive, close\r\n"), closes()),
        of("Proxy-Connection keeps nothing open", "RFC 9112 C.2.2", Should,
            &old("Proxy-Connection: keep-alive\r\n"), closes()),
        of("Keep-Alive alone keeps nothing open", "RFC 9112 9.3", Must,
            &old("Keep-Alive: 5\r\n"), closes()),
        case("HTTP/1.0 keep-alive, body of unknown length", "RFC 9112 9.3", Must,
            old("Connection: keep-alive\r\n"),
            all_of(vec![gets(200, vec![Body(b"hello")]), closes()]))
            .script(reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           5\r\nhello\r\n0\r\n\r\n")),
        case("the endpoint's close does not close the client", "RFC 9110 7.6.1", Should, get(""),
            all_of(vec![gets(200, vec![Body(b"yes"), NotIn("connection", "close")]), stays_open()]))
            .script(vec![
                Do::Body,
                send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nyes"),
                Do::Close,
            ]),
        case("the client's close does not close the endpoint", "RFC 9110 7.6.1", Must,
            get("Connection: close\r\n"), passed(vec![NotIn("connection", "close")])).ours(),
        case("nothing is read after close", "RFC 9112 9.6", Must,
            get("Connection: close\r\n") + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/")]), targets(&["/"]), closes()])),
        case("an error of the endpoint's keeps the connection", "RFC 9112 9.3", Should, get(""),
            all_of(vec![gets(500, vec![]), stays_open()]))
            .script(reply("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")),
        case("a 502 keeps the connection", "RFC 9112 9.3", Should, get(""),
            all_of(vec![gets(502, vec![]), stays_open()]))
            .script(vec![Do::Body, send("nonsense\r\n\r\n"), Do::Close]).ours().of_endpoints(),
        case("a client that closed its side still gets its answer", "RFC 9112 9.6", Should, get(""),
            gets(200, vec![Body(b"late")]))
            .script(vec![Do::Gate("go"), send(ok("late"))])
            .then(Act::Seen(b"GET /".to_vec()))
            .then(Act::Fin)
            .then(Act::Open("go"))
            .answers(1),
        case("an answer before the whole body was read closes", "RFC 9112 9.3", Must,
            post("Content-Length: 100\r\n", "hello"),
            all_of(vec![gets(401, vec![One("connection", "close")]), closes()]))
            .script(vec![send("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), Do::UntilClosed]).ours(),
    ]
}

fn pipelines() -> Vec<Case> {
    let many = (0..50).map(|i| get_target(&format!("/{i}"))).collect::<String>();
    let mixed = get_target("/1")
        + "POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"
        + "POST /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        + &get_target("/4");
    let in_order = that(|t| {
        let bodies: Vec<_> =
            t.finals().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
        let want: Vec<_> = (0..50).map(|i| format!("/{i}")).collect();
        if bodies == want { Ok(()) } else { Err(t.describe()) }
    });
    vec![
        case("fifty pipelined requests are answered in order", "RFC 9112 9.3.2", Must, many, in_order)
            .answers(50),
        case("pipelined requests with bodies", "RFC 9112 9.3.2", Must, mixed,
            all_of(vec![
                in_step(&[(200, "/1"), (200, "/2"), (200, "/3"), (200, "/4")]),
                targets(&["/1", "/2", "/3", "/4"]),
            ])).answers(4),
        case("the second of two pipelined requests waits for the first", "RFC 9112 9.3.2", Must,
            get_target("/1") + &get_target("/2"),
            all_of(vec![in_step(&[(200, "one"), (200, "/2")]), targets(&["/1", "/2"])]))
            .script(vec![Do::Gate("go"), send(ok("one"))])
            .then(Act::Seen(b"GET /1".to_vec()))
            .then(Act::Open("go"))
            .answers(2),
        case("an empty line between two requests", "RFC 9112 2.2", Should,
            get_target("/1") + "\r\n" + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/1"), (200, "/2")]), targets(&["/1", "/2"])])).answers(2),
        case("empty lines between two requests, apart from both", "RFC 9112 2.2", Should,
            get_target("/1") + "\r\n",
            all_of(vec![in_step(&[(200, "/1"), (200, "/2")]), targets(&["/1", "/2"])]))
            .answers(1)
            .then(Act::Send(b"\r\n\r".to_vec()))
            .then(Act::Send(b"\n".to_vec()))
            .then(Act::Send(get_target("/2").into_bytes()))
            .answers(2).ours(),
        case("a malformed request after a good one", "RFC 9112 9.3.2", Must,
            get_target("/1") + "nonsense\r\n\r\n" + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/1"), (400, "")]), targets(&["/1"]), closes()])).answers(2),
        case("an HTTP/1.0 request in a pipeline ends it", "RFC 9112 9.3", Must,
            get_target("/1") + "GET /2 HTTP/1.0\r\nHost: a.test\r\n\r\n" + &get_target("/3"),
            all_of(vec![in_step(&[(200, "/1"), (200, "/2")]), targets(&["/1", "/2"]), closes()]))
            .answers(2),
        case("pipelined requests that come with the client's end", "RFC 9112 9.6", Should,
            get_target("/1") + &get_target("/2") + &get_target("/3"),
            in_step(&[(200, "/1"), (200, "/2"), (200, "/3")])).then(Act::Fin).answers(3),
    ]
}
