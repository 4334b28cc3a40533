//! Fields about one connection only, in both directions: RFC 9110 sections 7.6.1 to 7.6.3 and 10.1.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(responses());
    cases.extend(forwards());
    cases
}

fn requests() -> Vec<Case> {
    let drops = |name: &str, level, fields: &str, looks| {
        case(name, "RFC 9110 7.6.1", level, get(fields), passed(looks))
    };
    vec![
        drops("Keep-Alive", Should, "Keep-Alive: timeout=5\r\n", vec![Lacks("keep-alive")]),
        drops("Proxy-Connection", Should, "Proxy-Connection: keep-alive\r\n",
            vec![Lacks("proxy-connection")]),
        drops("TE", Must, "TE: trailers, deflate\r\nConnection: TE\r\n",
            vec![Lacks("te")]).ours(),
        drops("TE that Connection does not name", Should, "TE: deflate\r\n", vec![Lacks("te")]),
        drops("Connection itself", Must, "Connection: x-mine\r\n",
            vec![that_connection_is_clean()]),
        drops("a field that Connection names", Must, "Connection: X-Mine\r\nX-Mine: 1\r\nX-B: 2\r\n",
            vec![Lacks("x-mine"), One("x-b", "2")]),
        drops("a named field, in other case", Must, "X-MINE: 1\r\nConnection: x-mine\r\n",
            vec![Lacks("x-mine")]),
        drops("all lines of a named field", Must,
            "X-Mine: 1\r\nConnection: close, X-Mine\r\nX-Mine: 2\r\n", vec![Lacks("x-mine")]),
        drops("named in the second Connection", Must,
            "Connection: close\r\nConnection: X-Mine\r\nX-Mine: 1\r\n", vec![Lacks("x-mine")]),
        drops("named in a list with gaps", Must, "Connection: ,, x-mine ,\t, x-b\r\nX-Mine: 1\r\nX-B: 2\r\n",
            vec![Lacks("x-mine"), Lacks("x-b")]),
        drops("fields that are only alike stay", Must,
            "Connection: X-Mine\r\nX-Mine-Too: 1\r\nX-Min: 2\r\n",
            vec![One("x-mine-too", "1"), One("x-min", "2")]),
        drops("a name that is no token harms nobody", Should,
            "Connection: \"X-Mine\", close\r\nX-Mine: 1\r\n", vec![One("x-mine", "1")]).ours(),
        drops("an empty Connection", Must, "Connection:\r\nX-A: 1\r\n", vec![One("x-a", "1")]),
        case("Host cannot be removed by naming it", "RFC 9110 7.6.1", Must,
            get("Connection: close, Host\r\n"),
            one_of(vec![passed(vec![One("host", "a.test")]), refused(&[400])])),
        case("Content-Length cannot be removed by naming it", "RFC 9110 7.6.1", Must,
            post("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"),
            one_of(vec![passed(vec![Body(b"hello")]), refused(&[400])])),
        case("Transfer-Encoding cannot be removed by naming it", "RFC 9110 7.6.1", Must,
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                "5\r\nhello\r\n0\r\n\r\n"),
            one_of(vec![passed(vec![Body(b"hello")]), refused(&[400])])),
        case("forwarded fields cannot be removed by naming them", "RFC 9110 7.6.1", Strict,
            get("Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via\r\n"),
            passed(vec![One("x-forwarded-for", "127.0.0.1"), One("x-forwarded-proto", "http"),
                One("x-forwarded-host", "a.test"), Has("via")])).ours(),
        case("ids and traces cannot be removed by naming them", "RFC 9110 7.6.1", Strict,
            get("Connection: close, X-Request-Id, Traceparent, Tracestate, Via\r\n\
                 X-Request-Id: 01234567890123456789\r\nTraceparent: t\r\nTracestate: s\r\n\
                 Via: 1.1 front\r\n"),
            passed(vec![One("x-request-id", "01234567890123456789"), One("traceparent", "t"),
                One("tracestate", "s"), Lines("via", &["1.1 front", "1.1 mesh"])])).ours(),
        case("Cookie named in Connection goes", "RFC 9110 7.6.1", Must,
            get("Connection: cookie\r\nCookie: a=b\r\n"), passed(vec![Lacks("cookie")])),
        case("HTTP2-Settings goes with its upgrade", "RFC 9110 7.6.1", Strict,
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"),
            passed(vec![Lacks("http2-settings"), Lacks("upgrade")])),
        drops("as many members of Connection as may be", Should,
            &format!("Connection: {}X-Mine\r\nX-Mine: 1\r\n", "a, ".repeat(63)),
            vec![Lacks("x-mine")]),
        // RFC 9110 section 5.4: larger than a recipient wishes to process.
        case("more members of Connection than that", "RFC 9110 5.4", Strict,
            get(&format!("Connection: {}\r\nConnection: close\r\n", "a, ".repeat(64))),
            refused(&[400])).ours(),
        case("end-to-end fields stay", "RFC 9110 7.6.1", Must,
            get("Authorization: a\r\nProxy-Authorization: b\r\nTrailer: X\r\nCache-Control: no-cache\r\n\
                 Range: bytes=0-1\r\nIf-Match: \"x\"\r\nReferer: r\r\nUser-Agent: u\r\n"),
            passed(vec![One("authorization", "a"), One("cache-control", "no-cache"),
                One("range", "bytes=0-1"), One("if-match", "\"x\""), One("referer", "r"),
                One("user-agent", "u")])),
    ]
}

/// Connection says nothing that the client said.
fn that_connection_is_clean() -> Look {
    NotIn("connection", "x-mine")
}

fn responses() -> Vec<Case> {
    let drops = |name: &str, level, fields: &str, looks| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nhi");
        case(name, "RFC 9110 7.6.1", level, get(""), gets(200, looks)).script(reply(answer))
    };
    vec![
        drops("response: Keep-Alive", Should, "Keep-Alive: timeout=5\r\n", vec![Lacks("keep-alive")])
            .ours(),
        drops("response: Proxy-Connection", Should, "Proxy-Connection: close\r\n",
            vec![Lacks("proxy-connection")]),
        drops("response: a field that Connection names", Must,
            "Connection: X-Mine\r\nX-Mine: 1\r\nX-B: 2\r\n",
            vec![Lacks("x-mine"), One("x-b", "2"), Body(b"hi")]),
        drops("response: a named field, before Connection", Must,
            "x-mine: 1\r\nconnection: close, X-MINE\r\n", vec![Lacks("x-mine")]),
        drops("response: two Connection lines", Must,
            "Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n",
            vec![Lacks("x-a"), Lacks("x-b")]),
        drops("response: Connection's own words go", Must, "Connection: x-mine\r\n",
            vec![that_connection_is_clean()]),
        drops("response: Content-Length named in Connection", Must,
            "Connection: Content-Length\r\n", vec![Body(b"hi")]),
        drops("response: TE", Should, "TE: x\r\n", vec![Lacks("te")]).ours(),
        drops("response: an Upgrade nobody asked for", Should,
            "Connection: Upgrade\r\nUpgrade: h2c\r\n", vec![Lacks("upgrade")]),
        drops("response: Set-Cookie lines stay apart", Must,
            "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", vec![Lines("set-cookie", &["a=1", "b=2"])]),
        drops("response: the order and case of fields", Must,
            "x-B: 1\r\nX-a: 2\r\n", vec![Raw(b"x-B: 1\r\nX-a: 2\r\n")]).ours().of_http1(),
        drops("response: the endpoint's Connection: close is its own", Must,
            "Connection: close\r\n", vec![Body(b"hi")]),
    ]
}

fn forwards() -> Vec<Case> {
    let of = |method: &str, fields: &str| {
        format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    vec![
        case("Max-Forwards 0 ends here (OPTIONS)", "RFC 9110 7.6.2", Must,
            of("OPTIONS", "Max-Forwards: 0\r\n"), that(ends_here)),
        case("Max-Forwards 0 ends here (TRACE)", "RFC 9110 7.6.2", Must,
            of("TRACE", "Max-Forwards: 0\r\n"), that(ends_here)),
        case("Max-Forwards counts down", "RFC 9110 7.6.2", Must,
            of("OPTIONS", "Max-Forwards: 5\r\n"), passed(vec![One("max-forwards", "4")])),
        case("Max-Forwards means nothing to GET", "RFC 9110 7.6.2", Should,
            of("GET", "Max-Forwards: 0\r\n"), passed(vec![One("max-forwards", "0")])),
        case("Via names this hop", "RFC 9110 7.6.3", Must, get(""), passed(vec![Has("via")])),
        case("Via keeps those before", "RFC 9110 7.6.3", Must, get("Via: 1.1 other\r\n"),
            one_of(vec![passed(vec![Lines("via", &["1.1 other", "1.1 mesh"])]),
                that(|t| {
                    let all = t.request()?.fields.all("via").join(",");
                    if all.starts_with("1.1 other,") { Ok(()) } else { Err(all) }
                })])),
        case("Via tells the version received", "RFC 9110 7.6.3", Must,
            "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
            that(|t| {
                let via = t.request()?.fields.all("via").join(",");
                let right = via.starts_with("1.0 ") || via.starts_with("HTTP/1.0 ");
                if right { Ok(()) } else { Err(format!("{via:?}")) }
            })),
        case("requests that go in circles end", "RFC 9110 7.6.3", Should,
            get(&"Via: 1.1 mesh\r\n".repeat(5)), answered(&[502], vec![])).ours(),
        case("naming Via does not hide a circle", "RFC 9110 7.6.3", Should,
            get(&("Connection: Via\r\n".to_string() + &"Via: 1.1 mesh\r\n".repeat(5))),
            answered(&[502], vec![])).ours(),
    ]
}

fn ends_here(t: &crate::case::Transcript) -> Result<(), String> {
    let status = t.answer()?.status;
    if t.seen.is_empty() { Ok(()) } else { Err(format!("it went on, status {status}")) }
}
