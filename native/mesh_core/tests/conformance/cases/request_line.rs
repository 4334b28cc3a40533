//! Request lines and header syntax: RFC 9112 sections 2, 3 and 5.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = lines();
    cases.extend(preserved());
    cases.extend(fields());
    cases.extend(every_byte());
    cases.extend(limits());
    cases
}

fn lines() -> Vec<Case> {
    let refuse = |name: &str, section, level, line: &[u8]| {
        let bytes = [line, b"\r\nHost: a.test\r\n\r\n"].concat();
        case(name, section, level, bytes, refused(&[400, 501, 505]))
    };
    vec![
        refuse("two spaces before the target", "RFC 9112 3", Strict, b"GET  / HTTP/1.1"),
        refuse("two spaces before the version", "RFC 9112 3", Strict, b"GET /  HTTP/1.1"),
        refuse("a tab for a space", "RFC 9112 3", Strict, b"GET\t/ HTTP/1.1"),
        refuse("a space at the end", "RFC 9112 3", Strict, b"GET / HTTP/1.1 "),
        refuse("a space in front", "RFC 9112 3", Should, b" GET / HTTP/1.1"),
        refuse("a space in the target", "RFC 9112 3.2", Should, b"GET /a b HTTP/1.1"),
        refuse("no target", "RFC 9112 3", Should, b"GET HTTP/1.1"),
        refuse("no version", "RFC 9112 3", Should, b"GET /"),
        refuse("an empty method", "RFC 9112 3.1", Should, b" / HTTP/1.1"),
        refuse("a method that is no token", "RFC 9112 3.1", Should, b"G(T / HTTP/1.1"),
        refuse("a method with a quote", "RFC 9112 3.1", Should, b"\"GET\" / HTTP/1.1"),
        refuse("a colon in the method", "RFC 9112 3.1", Should, b"GET: / HTTP/1.1"),
        refuse("a version in lower case", "RFC 9112 2.3", Should, b"GET / http/1.1"),
        refuse("a version without a dot", "RFC 9112 2.3", Should, b"GET / HTTP/11"),
        refuse("a version with a comma", "RFC 9112 2.3", Should, b"GET / HTTP/1,1"),
        refuse("a minor version of two digits", "RFC 9112 2.3", Should, b"GET / HTTP/1.10"),
        refuse("a version with a letter", "RFC 9112 2.3", Should, b"GET / HTTP/1.x"),
        refuse("a version with a sign", "RFC 9112 2.3", Should, b"GET / HTTP/+1.1"),
        refuse("major version 3", "RFC 9110 15.6.6", Should, b"GET / HTTP/3.0"),
        refuse("major version 0", "RFC 9110 15.6.6", Should, b"GET / HTTP/0.9"),
        refuse("another protocol", "RFC 9112 2.3", Should, b"GET / SIP/2.0"),
        refuse("a target that is no path", "RFC 9112 3.2", Should, b"GET foo HTTP/1.1"),
        refuse("a target that is a query", "RFC 9112 3.2", Should, b"GET ?a HTTP/1.1"),
        refuse("an asterisk for GET", "RFC 9112 3.2.4", Should, b"GET * HTTP/1.1"),
        refuse("an authority for GET", "RFC 9112 3.2.3", Should, b"GET a.test:80 HTTP/1.1"),
        refuse("a fragment", "RFC 9112 3.2.1", Strict, b"GET /a#b HTTP/1.1"),
        refuse("another scheme", "RFC 9110 4.2", Strict, b"GET ftp://a.test/ HTTP/1.1"),
        refuse("a NUL in the target", "RFC 9112 3.2", Should, b"GET /a\0b HTTP/1.1"),
        refuse("a DEL in the target", "RFC 9112 3.2", Strict, b"GET /a\x7fb HTTP/1.1"),
        refuse("a bare CR in the line", "RFC 9112 2.2", Strict, b"GET / HTTP/1.1\rX: y"),
        refuse("a bare CR in the target", "RFC 9112 2.2", Must, b"GET /\rX HTTP/1.1"),
        case("HTTP/0.9", "RFC 9112 2.3", Strict, "GET /\r\n\r\n", refused(&[400, 505])),
        // RFC 9112 section 2.2: at least one empty line is overlooked. A few are no request that has
        // begun; many are nonsense.
        case("nothing but line ends", "RFC 9112 2.2", Strict, "\r\n".repeat(10), refused(&[400])),
        case("a TLS hello", "RFC 9112 2.2", Should, TLS_HELLO, refused(&[400])),
        case("CONNECT", "RFC 9110 9.3.6", Strict, CONNECT, refused(&[400, 405, 501])),
        case(
            "a bare LF after the line",
            "RFC 9112 2.2",
            Strict,
            "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
            refused(&[400]),
        ),
        case(
            "bare LFs throughout",
            "RFC 9112 2.2",
            Strict,
            "GET / HTTP/1.1\nHost: a.test\n\n",
            refused(&[400]),
        ),
        case(
            "a bare LF ends the head",
            "RFC 9112 2.2",
            Strict,
            "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
            refused(&[400]),
        ),
        case(
            "one empty line in front is overlooked",
            "RFC 9112 2.2",
            Should,
            "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("GET / HTTP/1.1")]),
        ),
        case(
            "several empty lines in front are overlooked",
            "RFC 9112 2.2",
            Should,
            "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("GET / HTTP/1.1")]),
        )
        .ours(),
        case(
            "an empty line that ends with a bare LF",
            "RFC 9112 2.2",
            Strict,
            "\r\n\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            refused(&[400]),
        ),
        case(
            "white space before the first field",
            "RFC 9112 2.2",
            Must,
            "GET / HTTP/1.1\r\n Host: a.test\r\nHost: a.test\r\n\r\n",
            refused(&[400]),
        ),
    ]
}

const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0d\x0a\x0d\x0a";
const CONNECT: &str = "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n";

/// What must arrive as it was sent.
fn preserved() -> Vec<Case> {
    let keeps = |name: &str, section, target: &'static str, line: &'static str| {
        case(name, section, Must, get_target(target), passed(vec![Line(line)]))
    };
    vec![
        keeps("the path", "RFC 9110 7.7", "/a/b;c=d/e", "GET /a/b;c=d/e HTTP/1.1"),
        keeps("the query", "RFC 9110 7.7", "/?a=b&c=%20+d?", "GET /?a=b&c=%20+d? HTTP/1.1"),
        keeps("an empty query", "RFC 9110 7.7", "/a?", "GET /a? HTTP/1.1"),
        keeps("escapes", "RFC 9110 7.7", "/a/b%2f%2E%2e/%41", "GET /a/b%2f%2E%2e/%41 HTTP/1.1"),
        keeps("dot segments", "RFC 9110 7.7", "/a/../b/./c", "GET /a/../b/./c HTTP/1.1"),
        keeps("two slashes in front", "RFC 9110 7.7", "//b.test/x", "GET //b.test/x HTTP/1.1"),
        keeps("slashes in a row", "RFC 9110 7.7", "/a//b///", "GET /a//b/// HTTP/1.1"),
        keeps(
            "marks that browsers send",
            "RFC 9110 7.7",
            "/a|b[]{}^`'\"<>\\",
            "GET /a|b[]{}^`'\"<>\\ HTTP/1.1",
        ).ours(),
        case(
            "a method nobody knows",
            "RFC 9110 9.1",
            Should,
            "BREW /pot HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("BREW /pot HTTP/1.1")]),
        ),
        case(
            "the method's case",
            "RFC 9110 9.1",
            Must,
            "get / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            one_of(vec![passed(vec![Line("get / HTTP/1.1")]), refused(&[])]),
        ),
        case(
            "a method of every token mark",
            "RFC 9110 5.6.2",
            Should,
            "M!#$%&'*+-.^_`|~0 / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("M!#$%&'*+-.^_`|~0 / HTTP/1.1")]),
        ),
        case(
            "OPTIONS *",
            "RFC 9112 3.2.4",
            Must,
            "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed(vec![Line("OPTIONS * HTTP/1.1")]),
        )
        .ours(),
        case(
            "field order and the case of names",
            "RFC 9110 5.3",
            Must,
            get("X-b: 2\r\nx-A: 1\r\nX-B: 3\r\n"),
            passed(vec![Lines("x-b", &["2", "3"]), Raw(b"X-b: 2\r\nx-A: 1\r\nX-B: 3\r\n")]),
        )
        .ours()
        .of_http1(),
        case(
            "lines of one name stay in order",
            "RFC 9110 5.3",
            Must,
            get("X-B: 2\r\nX-A: 1\r\nX-B: 3\r\nX-B: 1\r\n"),
            one_of(vec![
                passed(vec![Lines("x-b", &["2", "3", "1"])]),
                passed(vec![Lines("x-b", &["2, 3, 1"])]),
            ]),
        ),
        case(
            "Cookie lines stay apart",
            "RFC 9110 5.3",
            Strict,
            get("Cookie: a=1\r\nCookie: b=2\r\n"),
            one_of(vec![
                passed(vec![Lines("cookie", &["a=1", "b=2"])]),
                passed(vec![Lines("cookie", &["a=1; b=2"])]),
            ]),
        ),
        case(
            "bytes above 127 in a value",
            "RFC 9110 5.5",
            Should,
            [b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: \xc3\xa9\xff\r\n\r\n".as_slice()].concat(),
            passed(vec![One("x-a", "\u{c3}\u{a9}\u{ff}")]),
        ),
        case(
            "a tab in a value",
            "RFC 9110 5.5",
            Must,
            get("X-A: a\tb\r\n"),
            passed(vec![One("x-a", "a\tb")]),
        ),
        case("an empty value", "RFC 9110 5.5", Must, get("X-A:\r\n"), passed(vec![One("x-a", "")])),
        case(
            "no space after the colon",
            "RFC 9112 5",
            Must,
            get("X-A:b\r\n"),
            passed(vec![One("x-a", "b")]),
        ),
        case(
            "much space around a value",
            "RFC 9112 5.1",
            Must,
            get("X-A: \t b \t \r\n"),
            passed(vec![One("x-a", "b")]),
        ),
        case(
            "a colon in a value",
            "RFC 9112 5",
            Must,
            get("X-A: b: c\r\n"),
            passed(vec![One("x-a", "b: c")]),
        ),
        case(
            "a date is left alone",
            "RFC 9110 6.6.1",
            Must,
            get("Date: then\r\n"),
            passed(vec![One("date", "then")]),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let refuse = |name: &str, section, level, line: &str| {
        case(name, section, level, get(&format!("{line}\r\n")), refused(&[400]))
    };
    vec![
        refuse("a space before the colon", "RFC 9112 5.1", Must, "X-A : b"),
        refuse("a tab before the colon", "RFC 9112 5.1", Must, "X-A\t: b"),
        refuse("a space in a name", "RFC 9112 5.1", Strict, "X A: b"),
        refuse("no colon", "RFC 9112 5", Strict, "X-A"),
        refuse("an empty name", "RFC 9112 5", Strict, ": b"),
        refuse("obs-fold with a space", "RFC 9112 5.2", Strict, "X-A: b\r\n c"),
        refuse("obs-fold with a tab", "RFC 9112 5.2", Strict, "X-A: b\r\n\tc"),
        refuse("obs-fold with white space alone", "RFC 9112 5.2", Strict, "X-A: b\r\n "),
        refuse("a folded Host", "RFC 9112 5.2", Strict, "X-A: b\r\n Host: c"),
        case("a NUL in a value", "RFC 9110 5.5", Must, get(&format!("{}\r\n", "X-A: b\0c")),
            refused_or_without(0)),
        refuse("a NUL in a name", "RFC 9110 5.1", Strict, "X\0A: b"),
        case("a CR in a value", "RFC 9112 2.2", Must, get(&format!("{}\r\n", "X-A: b\rc")),
            refused_or_without(b'\r')),
        case("a CR at the end of a value", "RFC 9112 2.2", Must, get(&format!("{}\r\n", "X-A: b\r")),
            refused_or_without(b'\r')),
        case("a CR in front of a name", "RFC 9112 2.2", Must, get(&format!("{}\r\n", "\rX-A: b")),
            refused_or_without(b'\r')),
        refuse("a bare LF in a value", "RFC 9112 2.2", Strict, "X-A: b\nX-C: d"),
        refuse("an escape character in a value", "RFC 9110 5.5", Strict, "X-A: \x1b[0m"),
        refuse("a DEL in a value", "RFC 9110 5.5", Strict, "X-A: \x7f"),
        refuse("a vertical tab before a value", "RFC 9110 5.5", Strict, "X-A:\x0bb"),
        refuse("parentheses in a name", "RFC 9110 5.6.2", Strict, "X(A): b"),
        refuse("an at sign in a name", "RFC 9110 5.6.2", Strict, "X@A: b"),
        refuse("a slash in a name", "RFC 9110 5.6.2", Strict, "X/A: b"),
        refuse("a second request line", "RFC 9112 5", Strict, "GET /b HTTP/1.1"),
    ]
}

/// All 256 bytes in each of the places where they may or may not stand.
fn every_byte() -> Vec<Case> {
    let places: [(&str, &[u8], &[u8]); 4] = [
        ("a method", b"M", b"X / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("a target", b"GET /x", b"y HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("a name", b"GET / HTTP/1.1\r\nHost: a.test\r\nX", b"Y: b\r\n\r\n"),
        ("a value", b"GET / HTTP/1.1\r\nHost: a.test\r\nX: b", b"c\r\n\r\n"),
    ];
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let mut cases = Vec::new();
    for (place, before, after) in places {
        // One case for all the bytes that are refused in a place, since each is a connection.
        for byte in 0..=255u8 {
            let allowed = match place {
                "a method" | "a name" => token(byte),
                "a target" => (0x21..=0x7e).contains(&byte) && byte != b'#',
                _ => byte == b'\t' || (0x20..=0x7e).contains(&byte) || byte >= 0x80,
            };
            // A colon ends a name, and what is above 127 in a target is undecided.
            let open = (place == "a name" && byte == b':') || (place == "a target" && byte >= 0x80);
            if open {
                continue;
            }
            let bytes = [before, &[byte], after].concat();
            let (level, check) =
                if allowed { (Should, passed(vec![])) } else { (Strict, refused(&[400, 505])) };
            let name = format!("byte {byte:#04x} in {place}");
            cases.push(case(name, "RFC 9110 5.5", level, bytes, check).ours());
        }
    }
    cases
}

fn limits() -> Vec<Case> {
    let long = "a".repeat(70_000);
    let many = |n: usize| (0..n).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    vec![
        case(
            "a target longer than a head may be",
            "RFC 9110 15.5.15",
            Should,
            get_target(&format!("/{long}")),
            refused(&[414]),
        )
        .ours(),
        case(
            "a head that is too long",
            "RFC 6585 5",
            Should,
            get(&format!("X-A: {long}\r\n")),
            refused(&[431]),
        )
        .ours(),
        case("too many fields", "RFC 6585 5", Should, get(&many(200)), refused(&[431])).ours(),
        case("99 fields and Host", "RFC 6585 5", Should, get(&many(99)), passed(vec![])).ours(),
        case(
            "a target of 8,000 bytes",
            "RFC 9112 3",
            Should,
            get_target(&format!("/{}", "b".repeat(7_999))),
            passed(vec![]),
        ),
        case(
            "a head of 40,000 bytes",
            "RFC 9110 5.4",
            Should,
            get(&format!("X-A: {}\r\n", "c".repeat(40_000))),
            passed(vec![]),
        )
        .ours(),
    ]
}
