//! Interim responses: RFC 9110 sections 15.2 and 10.1.1, RFC 8297.

use crate::prelude::*;

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";

pub fn cases() -> Vec<Case> {
    let expects = post("Expect: 100-continue\r\nContent-Length: 5\r\n", "");
    let old = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    let yes = ok("yes");
    let flood = HINTS.repeat(5_000);
    let both = |interim: &str| vec![Do::Body, send(format!("{interim}{yes}"))];
    vec![
        case("100 comes from the endpoint, then the body is sent", "RFC 9110 10.1.1", Should,
            &expects, all_of(vec![interims(&[100]), gets(200, vec![Body(b"yes")]), that(|t| {
                on_request(t.request()?, &[One("expect", "100-continue"), Body(b"hello")])
            })]))
            .script(vec![send(CONTINUE), Do::Body, send(&yes)])
            .then(Act::Got(CONTINUE.as_bytes()[..12].to_vec()))
            .then(Act::Send(b"hello".to_vec())),
        case("a final answer instead of 100", "RFC 9110 10.1.1", Should, &expects,
            all_of(vec![interims(&[]), gets(403, vec![])]))
            .script(vec![send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), Do::UntilClosed]),
        case("the body comes without waiting", "RFC 9110 10.1.1", Must, expects.clone() + "hello",
            gets(200, vec![Body(b"yes")])).script(vec![send(CONTINUE), Do::Body, send(&yes)]),
        case("an endpoint that knows no Expect", "RFC 9110 10.1.1", Must, expects.clone() + "hello",
            gets(200, vec![Body(b"yes")])).script(reply(&yes)),
        case("Expect from HTTP/1.0 goes no further", "RFC 9110 10.1.1", Should,
            "POST / HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
            one_of(vec![passed(vec![Lacks("expect"), Body(b"hello")]), refused(&[])])),
        case("a 100 without Expect", "RFC 9110 15.2.1", Must, get(""),
            gets(200, vec![Body(b"yes")])).script(both(CONTINUE)),
        case("103 is passed on", "RFC 8297 2", Should, get(""),
            all_of(vec![interims(&[103]), gets(200, vec![Body(b"yes")])])).script(both(HINTS)),
        case("the fields of a 103", "RFC 8297 2", Should, get(""),
            that(|t| match t.responses.first() {
                Some(r) if r.status == 103 => {
                    on_response(r, &[One("link", "</a.css>; rel=preload"), Lacks("date")])
                }
                _ => Err(t.describe()),
            })).script(both(HINTS)),
        case("several interim responses arrive in order", "RFC 9110 15.2", Should, get(""),
            all_of(vec![interims(&[103, 102, 103]), gets(200, vec![])]))
            .script(both(&format!("{HINTS}HTTP/1.1 102 Processing\r\n\r\n{HINTS}"))),
        case("an unknown 1xx is passed on", "RFC 9110 15.2", Should, get(""),
            all_of(vec![interims(&[150]), gets(200, vec![])]))
            .script(both("HTTP/1.1 150 Odd\r\n\r\n")),
        case("an interim response arrives before the final one", "RFC 8297 2", Should, get(""),
            all_of(vec![interims(&[103]), gets(200, vec![Body(b"yes")])]))
            .script(vec![send(HINTS), Do::Gate("final"), send(&yes)])
            .then(Act::Got(b"103 Early Hints".to_vec()))
            .then(Act::Open("final")),
        case("no 103 for HTTP/1.0", "RFC 9110 15.2", Must, old,
            all_of(vec![interims(&[]), gets(200, vec![Body(b"yes")])])).script(both(HINTS)),
        case("no 100 for HTTP/1.0", "RFC 9110 15.2", Must, old,
            all_of(vec![interims(&[]), gets(200, vec![Body(b"yes")])])).script(both(CONTINUE)),
        case("hop-by-hop fields in a 103 go", "RFC 9110 7.6.1", Must, get(""),
            that(|t| {
                let clean = [Lacks("keep-alive"), Lacks("x-mine")];
                t.responses.iter().try_for_each(|r| on_response(r, &clean))?;
                gets(200, vec![Body(b"yes")])(t)
            }))
            .script(both("HTTP/1.1 103 Early Hints\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\
                          Keep-Alive: a\r\n\r\n")),
        case("a length in a 1xx means nothing", "RFC 9110 8.6", Strict, get(""),
            that(|t| {
                let interim = t.responses.iter().filter(|r| r.status < 200);
                let clean = [Lacks("content-length"), Lacks("transfer-encoding")];
                interim.clone().try_for_each(|r| on_response(r, &clean))?;
                gets(200, vec![Body(b"yes")])(t)
            })).script(both("HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n")),
        case("a flood of interim responses is cut off", "RFC 9110 15.2", Strict, get(""),
            that(|t| {
                let few = t.responses.iter().filter(|r| r.status < 200).count() < 1_000;
                if few { not_believed()(t) } else { Err("thousands of them".into()) }
            })).script(both(&flood)),
        case("an interim response and then the end", "RFC 9112 8", Must, get(""), not_believed())
            .script(vec![Do::Body, send(HINTS), Do::Close]),
        case("interim responses of pipelined requests stay in order", "RFC 9112 9.3.2", Must,
            get_target("/1") + &get_target("/2"),
            all_of(vec![in_step(&[(200, "yes"), (200, "/2")]), interims(&[103])]))
            .script(both(HINTS)).answers(2),
    ]
}
