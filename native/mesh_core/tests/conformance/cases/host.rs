//! Host and the absolute form: RFC 9110 section 7.2, RFC 9112 sections 3.2 and 3.3.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = refusals();
    cases.extend(absolute());
    cases.extend(names());
    cases
}

fn with_host(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

fn refusals() -> Vec<Case> {
    let must = |name: &str, lines: &str| {
        case(name, "RFC 9112 3.2", Must, with_host(lines), refused_with(400))
    };
    let strict = |name: &str, lines: &str| {
        case(name, "RFC 9112 3.2", Strict, with_host(lines), refused(&[400]))
    };
    vec![
        must("no Host", ""),
        must("two Hosts", "Host: a.test\r\nHost: b.test\r\n"),
        must("two equal Hosts", "Host: a.test\r\nHost: a.test\r\n"),
        must("two Hosts, apart, in other case", "Host: a.test\r\nX: y\r\nhOST: a.test\r\n"),
        must("a Host and an empty one", "Host: a.test\r\nHost:\r\n"),
        must("a space in Host", "Host: a.test b.test\r\n"),
        must("a path in Host", "Host: a.test/b\r\n"),
        must("a query in Host", "Host: a.test?b\r\n"),
        must("a fragment in Host", "Host: a.test#b\r\n"),
        must("a user in Host", "Host: user@a.test\r\n"),
        must("a URL as Host", "Host: http://a.test/\r\n"),
        must("a port that is no number", "Host: a.test:http\r\n"),
        must("a port with a sign", "Host: a.test:-80\r\n"),
        must("a port with a plus", "Host: a.test:+80\r\n"),
        must("a port with a space", "Host: a.test: 80\r\n"),
        must("two ports", "Host: a.test:80:80\r\n"),
        must("an IPv6 address without brackets", "Host: ::1\r\n"),
        must("an IPv6 address with one bracket", "Host: [::1\r\n"),
        must("letters behind an IPv6 address", "Host: [::1]x\r\n"),
        must("something else in brackets", "Host: [a.test]\r\n"),
        must("a backslash in Host", "Host: a.test\\b\r\n"),
        must("a quote in Host", "Host: \"a.test\"\r\n"),
        must("a less-than in Host", "Host: <a.test>\r\n"),
        must("a space before Host's colon", "Host : a.test\r\n"),
        must("a tab in Host", "Host: a\t.test\r\n"),
        strict("an empty Host", "Host:\r\n"),
        strict("a port without a host", "Host: :80\r\n"),
        strict("a port above 65535", "Host: a.test:65536\r\n"),
        strict("a port of many digits", "Host: a.test:00000000000080\r\n"),
        strict("an empty label", "Host: a..test\r\n"),
        strict("a dot alone", "Host: .\r\n"),
        strict("a dot in front", "Host: .a.test\r\n"),
        strict("bytes above 127", "Host: \u{e9}.test\r\n"),
        case(
            "no Host, absolute form",
            "RFC 9112 3.2",
            Must,
            "GET http://a.test/ HTTP/1.1\r\n\r\n",
            refused_with(400),
        ),
        case(
            "two Hosts, absolute form",
            "RFC 9112 3.2",
            Must,
            "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            refused_with(400),
        ),
        case(
            "a bad Host, absolute form",
            "RFC 9112 3.2",
            Must,
            "GET http://a.test/ HTTP/1.1\r\nHost: a/b\r\n\r\n",
            refused_with(400),
        ),
        case(
            "two Hosts in HTTP/1.0",
            "RFC 9112 3.2",
            Must,
            "GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            refused_with(400),
        ),
    ]
}

fn absolute() -> Vec<Case> {
    let form = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let refuse = |name: &str, level, target: &str| {
        case(name, "RFC 9110 4.2", level, form(target, "a.test"), refused(&[400]))
    };
    let passes = |name: &str, section, target: &str, line, host| {
        let looks = vec![Line(line), One("host", host)];
        case(name, section, Must, form(target, "a.test"), passed(looks))
    };
    vec![
        passes(
            "the absolute form",
            "RFC 9112 3.2.2",
            "http://a.test/b?c",
            "GET /b?c HTTP/1.1",
            "a.test",
        ),
        passes("without a path", "RFC 9112 3.2.1", "http://a.test", "GET / HTTP/1.1", "a.test"),
        passes(
            "a query and no path",
            "RFC 9112 3.2.1",
            "http://a.test?b",
            "GET /?b HTTP/1.1",
            "a.test",
        ),
        passes(
            "the scheme in capitals",
            "RFC 9110 4.2.3",
            "HTTP://a.test/b",
            "GET /b HTTP/1.1",
            "a.test",
        ),
        case(
            "the target's host counts, not Host's",
            "RFC 9112 3.2.2",
            Must,
            form("http://a.test:81/b", "b.test"),
            passed(vec![Line("GET /b HTTP/1.1"), One("host", "a.test:81")]),
        ),
        case(
            "Host in front of much else is replaced",
            "RFC 9112 3.2.2",
            Must,
            "GET http://a.test/ HTTP/1.1\r\nX-A: 1\r\nHost: evil.test\r\nX-B: 2\r\n\r\n",
            passed(vec![One("host", "a.test"), One("x-a", "1"), One("x-b", "2")]),
        ),
        case(
            "Host named in Connection",
            "RFC 9112 3.2.2",
            Must,
            "GET http://a.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: host\r\n\r\n",
            one_of(vec![passed(vec![One("host", "a.test")]), refused(&[])]),
        ),
        case(
            "OPTIONS for the whole server",
            "RFC 9112 3.2.4",
            Must,
            "OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("OPTIONS * HTTP/1.1"), One("host", "a.test")]),
        ),
        case(
            "OPTIONS with a query and no path",
            "RFC 9112 3.2.4",
            Must,
            "OPTIONS http://a.test?b HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("OPTIONS /?b HTTP/1.1")]),
        ),
        case(
            "in HTTP/1.0 without Host",
            "RFC 9112 3.2.2",
            Must,
            "GET http://a.test/b HTTP/1.0\r\n\r\n",
            passed(vec![Line("GET /b HTTP/1.1"), One("host", "a.test")]),
        )
        .ours(),
        refuse("an empty authority", Must, "http:///b"),
        refuse("a scheme and nothing else", Must, "http://"),
        refuse("a user in the authority", Strict, "http://user@a.test/"),
        case(
            "an https target without TLS",
            "RFC 9110 7.4",
            Must,
            "GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            answered(&[421], vec![]),
        )
        .ours(),
        case(
            "an https target in capitals without TLS",
            "RFC 9110 7.4",
            Must,
            "GET HTTPS://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            answered(&[421], vec![]),
        )
        .ours(),
        case(
            "an https target without TLS, with a body",
            "RFC 9110 7.4",
            Must,
            "POST https://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi",
            refused(&[421]),
        )
        .ours(),
        refuse("a port that is no number in the authority", Must, "http://a.test:b/"),
        refuse("one slash", Strict, "http:/a.test/"),
        refuse("no scheme", Strict, "://a.test/"),
    ]
}

fn names() -> Vec<Case> {
    let passes = |name: &str, section, host: &'static str| {
        let request = with_host(&format!("Host: {host}\r\n"));
        case(name, section, Must, request, passed(vec![One("host", host)]))
    };
    let unknown = |name: &str, host: &str| {
        let check = answered(&[404], vec![]);
        case(name, "RFC 9110 15.5.5", Should, with_host(&format!("Host: {host}\r\n")), check).ours()
    };
    vec![
        passes("Host as it came", "RFC 9110 7.2", "a.test"),
        passes("capitals", "RFC 9110 4.2.3", "A.TeSt"),
        passes("a port", "RFC 9110 7.2", "a.test:4000"),
        passes("an empty port", "RFC 3986 3.2.3", "a.test:"),
        passes("a trailing dot", "RFC 3986 3.2.2", "a.test."),
        passes("a trailing dot and a port", "RFC 3986 3.2.2", "a.test.:80"),
        passes("a tenant", "RFC 9110 7.2", "tenant1.a.test"),
        passes("a tenant of many labels", "RFC 9110 7.2", "x.y.z.a.test"),
        passes("an underscore", "RFC 3986 3.2.2", "my_tenant.a.test"),
        unknown("another host", "b.test"),
        unknown("a host that only ends alike", "xa.test"),
        unknown("a part of the host", "test"),
        unknown("an IPv4 address", "127.0.0.1"),
        unknown("an IPv6 address", "[::1]:4000"),
        case(
            "an unknown host is told which",
            "RFC 9110 15.5.5",
            Should,
            with_host("Host: b.test:1\r\n"),
            answered(&[404], vec![Body(b"unknown service: b.test\n")]),
        )
        .ours(),
        case(
            "as JSON where that is wanted",
            "RFC 9110 12.5.1",
            Should,
            with_host("Host: b.test\r\nAccept: application/json\r\n"),
            answered(&[404], vec![One("content-type", "application/json")]),
        )
        .ours(),
        case(
            "as HTML, escaped, for browsers",
            "RFC 9110 12.5.1",
            Should,
            with_host("Host: b'&.test\r\nAccept: text/html\r\n"),
            that(|t| {
                let body = String::from_utf8_lossy(&t.answer()?.body).into_owned();
                let safe = body.contains("b&#39;&amp;.test");
                if safe { Ok(()) } else { Err(body) }
            }),
        )
        .ours(),
        case(
            "the connection outlives a 404",
            "RFC 9112 9.3",
            Should,
            with_host("Host: b.test\r\n") + &get(""),
            all_of(vec![in_step(&[(404, ""), (200, "/")]), targets(&["/"])]),
        )
        .answers(2)
        .ours(),
        case(
            "no Host in HTTP/1.0 and no default",
            "RFC 9112 3.2",
            Should,
            "GET / HTTP/1.0\r\n\r\n",
            answered(&[404], vec![]),
        )
        .ours(),
        case(
            "HEAD for an unknown host has no body",
            "RFC 9110 9.3.2",
            Must,
            "HEAD / HTTP/1.1\r\nHost: b.test\r\n\r\n",
            answered(&[404], vec![Body(b"")]),
        )
        .ours(),
        case(
            "a refused HEAD has no body",
            "RFC 9110 9.3.2",
            Must,
            "HEAD / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            that(|t| {
                let silent = (!t.own || t.answer()?.status == 400) && t.rest.is_empty();
                if silent { Ok(()) } else { Err(t.describe()) }
            }),
        ),
    ]
}
