//! Message bodies: Content-Length, Transfer-Encoding, chunks and trailers.
//! RFC 9112 sections 6 and 7, RFC 9110 section 8.6.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(codings());
    cases.extend(chunks());
    cases.extend(bad_chunks());
    cases.extend(trailers());
    cases
}

fn lengths() -> Vec<Case> {
    let refuse = |name: &str, level, fields: &str| {
        case(name, "RFC 9112 6.3", level, post(&format!("{fields}\r\n"), "hello"), refused(&[400]))
    };
    let passes = |name: &str, fields: &str, body: &str, looks: Vec<Look>| {
        case(name, "RFC 9112 6.2", Must, post(fields, body), passed(looks))
    };
    vec![
        refuse("a length with a sign", Must, "Content-Length: +5"),
        refuse("a negative length", Must, "Content-Length: -5"),
        refuse("a hexadecimal length", Must, "Content-Length: 0x5"),
        refuse("a length with a letter", Must, "Content-Length: 5a"),
        refuse("a length with a space in it", Must, "Content-Length: 5 5"),
        refuse("a length with a fraction", Must, "Content-Length: 5.0"),
        refuse("a length in quotes", Must, "Content-Length: \"5\""),
        refuse("an empty length", Must, "Content-Length:"),
        refuse("a length above 64 bits", Must, "Content-Length: 18446744073709551621"),
        refuse("an endless length", Must, "Content-Length: 99999999999999999999999999999999999"),
        refuse("two lengths", Must, "Content-Length: 5\r\nContent-Length: 6"),
        refuse("two lengths, apart", Must, "Content-Length: 6\r\nX: y\r\ncontent-length: 5"),
        refuse("a list of two lengths", Must, "Content-Length: 5, 6"),
        refuse("two equal lengths", Strict, "Content-Length: 5\r\nContent-Length: 5"),
        refuse("a list of two equal lengths", Strict, "Content-Length: 5, 5"),
        refuse("a list with an empty member", Must, "Content-Length: 5,"),
        refuse("a length with a vertical tab", Must, "Content-Length: \x0b5"),
        refuse("a length with a NUL", Must, "Content-Length: 5\0"),
        refuse("a space before the length's colon", Must, "Content-Length : 5"),
        refuse("a length that is folded", Strict, "Content-Length:\r\n 5"),
        passes("a length", "Content-Length: 5\r\n", "hello",
            vec![One("content-length", "5"), Lacks("transfer-encoding"), Body(b"hello")]),
        passes("a length of zero", "Content-Length: 0\r\n", "",
            vec![One("content-length", "0"), Body(b"")]),
        passes("a length with zeros in front", "Content-Length: 0005\r\n", "hello",
            vec![Body(b"hello")]),
        passes("white space around a length", "Content-Length: \t5 \r\n", "hello",
            vec![Body(b"hello")]),
        passes("a POST without a body", "", "", vec![Body(b""), Lacks("transfer-encoding")]),
        passes("a body of bytes that look like a head", "Content-Length: 18\r\n",
            "GET / HTTP/1.1\r\n\r\n", vec![Body(b"GET / HTTP/1.1\r\n\r\n")]),
        case("a GET with a body", "RFC 9110 9.3.1", Should,
            "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
            passed(vec![Body(b"hello")])),
        case("a DELETE with a body", "RFC 9110 9.3.5", Should,
            "DELETE / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
            passed(vec![Body(b"hello")])),
        case("a body in HTTP/1.0", "RFC 9112 6.2", Must,
            "POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
            passed(vec![Body(b"hello")])),
        case("a body that ends early is not passed on as whole", "RFC 9112 8", Must,
            post("Content-Length: 10\r\n", "hello"),
            that(|t| {
                let whole = t.requests.iter().any(|r| r.whole);
                if whole { Err(t.describe()) } else { Ok(()) }
            })).then(Act::Fin),
    ]
}

fn codings() -> Vec<Case> {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let refuse = |name: &str, level, fields: &str| {
        let request = post(&format!("{fields}\r\n"), CHUNKS);
        case(name, "RFC 9112 6.1", level, request, refused(&[400, 501]))
    };
    vec![
        refuse("length and chunks", Strict, "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        refuse("chunks and length", Strict, "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        refuse("chunks and a length of zero", Strict,
            "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        refuse("chunks and a bad length", Strict, "Transfer-Encoding: chunked\r\nContent-Length: x"),
        refuse("length and an unknown coding", Must, "Content-Length: 5\r\nTransfer-Encoding: x"),
        refuse("length and identity", Must, "Content-Length: 5\r\nTransfer-Encoding: identity"),
        refuse("chunked is not last", Must, "Transfer-Encoding: chunked, gzip"),
        refuse("chunked is not last, in two lines", Must,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"),
        refuse("an unknown coding alone", Must, "Transfer-Encoding: gzip"),
        refuse("identity", Must, "Transfer-Encoding: identity"),
        refuse("chunked and identity", Must, "Transfer-Encoding: chunked, identity"),
        refuse("identity and chunked", Strict, "Transfer-Encoding: identity, chunked"),
        refuse("gzip and chunked", Strict, "Transfer-Encoding: gzip, chunked"),
        refuse("chunked twice", Must, "Transfer-Encoding: chunked, chunked"),
        refuse("chunked in two lines", Must,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        refuse("an empty coding", Must, "Transfer-Encoding:"),
        refuse("an empty coding and a chunked one", Strict,
            "Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
        refuse("a comma in front", Strict, "Transfer-Encoding: , chunked"),
        refuse("a comma behind", Strict, "Transfer-Encoding: chunked,"),
        refuse("almost chunked", Must, "Transfer-Encoding: xchunked"),
        refuse("chunked and more letters", Must, "Transfer-Encoding: chunkedx"),
        refuse("chunked in quotes", Must, "Transfer-Encoding: \"chunked\""),
        refuse("chunked with a parameter", Must, "Transfer-Encoding: chunked;q=1"),
        refuse("chunked and a semicolon", Must, "Transfer-Encoding: chunked;"),
        refuse("chunked behind a space", Must, "Transfer-Encoding: x chunked"),
        refuse("chunked behind a vertical tab", Must, "Transfer-Encoding: \x0bchunked"),
        refuse("chunked with a NUL", Must, "Transfer-Encoding: chunked\0"),
        refuse("chunked with a bare CR", Strict, "Transfer-Encoding: chunked\r"),
        refuse("a space before its colon", Must, "Transfer-Encoding : chunked"),
        refuse("a folded coding", Strict, "Transfer-Encoding:\r\n chunked"),
        refuse("a folded coding with a length", Strict,
            "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked"),
        refuse("a bare LF in front of it", Strict, "X: y\nTransfer-Encoding: chunked"),
        case("chunked in HTTP/1.0", "RFC 9112 6.1", Must,
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            if_own(refused(&[400]), closes())),
        case("both in HTTP/1.0", "RFC 9112 6.1", Must,
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\
             Content-Length: 5\r\n\r\n0\r\n\r\n",
            if_own(refused(&[400]), closes())),
        case("chunked in capitals", "RFC 9112 7", Must,
            post("Transfer-Encoding: CHUNKED\r\n", CHUNKS), passed(vec![Body(b"hello")])),
        case("the field in capitals", "RFC 9110 5.1", Must,
            post("TRANSFER-ENCODING: chunked\r\n", CHUNKS), passed(vec![Body(b"hello")])),
        // A name with an underscore is another name, though some endpoints cannot tell.
        case("an underscore in its name", "RFC 9110 5.1", Must,
            post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
            passed(vec![Body(b"hello"), One("content-length", "5")])),
    ]
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn chunks() -> Vec<Case> {
    let passes = |name: &str, level, body: &str, want: &'static [u8]| {
        case(name, "RFC 9112 7.1", level, post(CHUNKED, body), passed(vec![Body(want)]))
    };
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(900));
    vec![
        passes("chunks", Must, "5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n", b"helloabc"),
        passes("no data at all", Must, "0\r\n\r\n", b""),
        passes("sizes in either case", Must, "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            b"01234567890123456789"),
        passes("zeros in front of a size", Must, "0005\r\nhello\r\n000\r\n\r\n", b"hello"),
        passes("data that looks like a last chunk", Must, "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
            b"0\r\n\r\n"),
        passes("an extension", Must, "5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
        passes("an extension in quotes", Must, "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n", b"hello"),
        passes("several extensions", Must, "5;a;b=c;d=\"e\"\r\nhello\r\n0\r\n\r\n", b"hello"),
        passes("a long extension", Should, &long, b"hello"),
        // RFC 9112 section 7.1.1: chunk-ext = *( BWS ";" BWS ...
        passes("a space before an extension", Must, "5 ;x\r\nhello\r\n0 ;x\r\n\r\n", b"hello"),
        passes("white space all over an extension", Must,
            "5\t \t; a = \"b\" ;c\r\nhello\r\n0\r\n\r\n", b"hello"),
        case("extensions are not for the endpoint", "RFC 9112 7.1.1", Strict,
            post(CHUNKED, "5;evil=1\r\nhello\r\n0;evil\r\n\r\n"),
            that(|t| {
                t.request()?;
                let seen = t.seen.concat();
                let has = seen.windows(4).any(|w| w == b"evil");
                if has { Err(t.describe()) } else { Ok(()) }
            })),
        case("the framing is stated anew, once", "RFC 9112 6.1", Must,
            post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n"),
            one_of(vec![
                passed(vec![One("transfer-encoding", "chunked"), Lacks("content-length")]),
                passed(vec![One("content-length", "5"), Lacks("transfer-encoding")]),
            ])),
        case("the next request begins where the chunks end", "RFC 9112 7.1", Must,
            post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n") + &get_target("/2"),
            all_of(vec![in_step(&[(200, "/"), (200, "/2")]), targets(&["/", "/2"])])).answers(2),
        case("a GET in chunks", "RFC 9110 9.3.1", Should,
            get(CHUNKED) + "5\r\nhello\r\n0\r\n\r\n", passed(vec![Body(b"hello")])),
        case("chunks that break off are not passed on as whole", "RFC 9112 8", Must,
            post(CHUNKED, "5\r\nhello\r\n"),
            that(|t| {
                let whole = t.requests.iter().any(|r| r.whole);
                if whole { Err(t.describe()) } else { Ok(()) }
            })).then(Act::Fin),
    ]
}

/// Chunks that are none. The head is fine, so it may have gone to the endpoint; what must not have
/// is a whole request.
fn bad_chunks() -> Vec<Case> {
    let refuse = |name: &str, level, body: &[u8]| {
        let request = [post(CHUNKED, "").as_bytes(), body].concat();
        case(name, "RFC 9112 7.1", level, request, that(|t| {
            if t.requests.iter().any(|r| r.whole) || t.malformed.is_some() {
                return Err(format!("the endpoint took it for a request; {}", t.describe()));
            }
            match t.finals()[..] {
                [] if t.closed && !t.own => Ok(()),
                [one] if one.status == 400 || (!t.own && one.status > 400) => closes()(t),
                _ => Err(t.describe()),
            }
        }))
    };
    let long = [b"5;".as_slice(), &[b'x'; 3000], b"\r\nhello\r\n0\r\n\r\n"].concat();
    vec![
        refuse("a size that is no number", Must, b"x\r\nhello\r\n0\r\n\r\n"),
        refuse("an empty size", Must, b"\r\nhello\r\n0\r\n\r\n"),
        refuse("a size with 0x", Must, b"0x5\r\nhello\r\n0\r\n\r\n"),
        refuse("a size with a sign", Must, b"+5\r\nhello\r\n0\r\n\r\n"),
        refuse("a negative size", Must, b"-5\r\nhello\r\n0\r\n\r\n"),
        refuse("a size with an underscore", Must, b"0_5\r\nhello\r\n0\r\n\r\n"),
        refuse("a size of 17 digits", Must, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        refuse("a size of many zeros", Strict, b"000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        refuse("a space before the size", Strict, b" 5\r\nhello\r\n0\r\n\r\n"),
        refuse("a space after the size", Strict, b"5 \r\nhello\r\n0\r\n\r\n"),
        refuse("a tab after the size", Strict, b"5\t\r\nhello\r\n0\r\n\r\n"),
        refuse("a space and more after the size", Must, b"5 5\r\nhello\r\n0\r\n\r\n"),
        refuse("a space after the last size", Strict, b"5\r\nhello\r\n0 \r\n\r\n"),
        refuse("a space before an extension and a bare LF", Strict, b"5 \n;x\r\nhello\r\n0\r\n\r\n"),
        refuse("a comma after the size", Must, b"5,\r\nhello\r\n0\r\n\r\n"),
        refuse("a bare LF after the size", Strict, b"5\nhello\r\n0\r\n\r\n"),
        refuse("a bare CR after the size", Must, b"5\rhello\r\n0\r\n\r\n"),
        refuse("two CRs after the size", Strict, b"5\r\r\nhello\r\n0\r\n\r\n"),
        refuse("a bare LF after the data", Strict, b"5\r\nhello\n0\r\n\r\n"),
        refuse("no line end after the data", Must, b"5\r\nhello0\r\n\r\n"),
        refuse("more data than the size says", Must, b"5\r\nhelloX\r\n0\r\n\r\n"),
        refuse("less data than the size says", Strict, b"6\r\nhello\r\n0\r\n\r\n"),
        refuse("a bare LF in an extension", Strict, b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        refuse("a bare CR in an extension", Strict, b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        refuse("a NUL in an extension", Strict, b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
        refuse("an extension without end", Strict, &long),
        refuse("a bare LF after the last chunk", Strict, b"5\r\nhello\r\n0\n\r\n"),
        refuse("a bare LF ends the body", Strict, b"5\r\nhello\r\n0\r\n\n"),
        refuse("data in the last chunk", Strict, b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
        refuse("a NUL in a trailer", Strict, b"0\r\nX-A: b\0c\r\n\r\n"),
        refuse("a CR in a trailer", Strict, b"0\r\nX-A: b\rc\r\n\r\n"),
        refuse("a bare LF in a trailer", Strict, b"0\r\nX-A: b\nX-C: d\r\n\r\n"),
        refuse("a folded trailer", Strict, b"0\r\nX-A: b\r\n c\r\n\r\n"),
        refuse("a trailer without a colon", Strict, b"0\r\nX-A\r\n\r\n"),
        refuse("a space before a trailer's colon", Strict, b"0\r\nX-A : b\r\n\r\n"),
        refuse("trailers without end", Must, &[b"0\r\nX-A: ", [b'b'; 90_000].as_slice()].concat()),
    ]
}

fn trailers() -> Vec<Case> {
    let passes = |name: &str, section, level, trailers: &str, looks| {
        let body = format!("5\r\nhello\r\n0\r\n{trailers}\r\n");
        case(name, section, level, post(CHUNKED, &body), passed(looks))
    };
    vec![
        passes("a trailer", "RFC 9110 6.5.2", Should, "X-Sum: 1\r\n",
            vec![Body(b"hello"), Trailer("x-sum", "1"), Lacks("x-sum")]).of_endpoints(),
        passes("a trailer is not merged into the head", "RFC 9110 6.5.1", Must,
            "X-Forwarded-For: 1.2.3.4\r\n", vec![NoTrailer("x-forwarded-for")]).ours(),
        passes("a length in a trailer", "RFC 9110 6.5.1", Strict, "Content-Length: 7\r\n",
            vec![NoTrailer("content-length")]),
        passes("a coding in a trailer", "RFC 9110 6.5.1", Strict, "Transfer-Encoding: chunked\r\n",
            vec![NoTrailer("transfer-encoding")]),
        passes("a Host in a trailer", "RFC 9110 6.5.1", Strict, "Host: evil.test\r\n",
            vec![NoTrailer("host")]),
        passes("credentials in a trailer", "RFC 9110 6.5.1", Strict, "Authorization: Basic eA==\r\n",
            vec![NoTrailer("authorization"), Lacks("authorization")]),
        passes("Connection in a trailer", "RFC 9110 6.5.1", Strict, "Connection: close\r\n",
            vec![NoTrailer("connection")]),
        passes("good trailers beside bad ones", "RFC 9110 6.5.1", Should,
            "X-A: 1\r\nHost: evil.test\r\nX-B: 2\r\n",
            vec![Trailer("x-a", "1"), Trailer("x-b", "2"), NoTrailer("host")]).ours().of_endpoints(),
    ]
}
