use mesh_core::Config;

use crate::support::client::{Client, get};
use crate::support::endpoint::{Do, Endpoint, ok, reply, send};
use crate::support::mesh::Mesh;
use crate::support::wire::{Request, Response};

/// What the endpoint got, and the client, for a GET with these field lines.
fn pass(config: Config, fields: &str) -> (Request, Response) {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(config, &endpoint.address);
    let response = Client::connect(mesh.address()).ask(get(fields));
    (endpoint.requests().remove(0), response)
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[test]
fn a_request_without_an_id_gets_one() {
    let (first, _) = pass(Config::default(), "");
    let (second, _) = pass(Config::default(), "");
    let id = |request: &Request| request.fields.one("x-request-id").expect("one id");
    assert!(is_made(&id(&first)) && is_made(&id(&second)));
    assert_ne!(id(&first), id(&second));
}

#[test]
fn a_valid_id_stays_as_it_came() {
    let (request, _) = pass(Config::default(), "x-REQUEST-id: F-0123456789_abcdef+/\r\n");
    assert_eq!(request.fields.all("x-request-id"), ["F-0123456789_abcdef+/"]);
    assert!(request.head.windows(12).any(|w| w == b"x-REQUEST-id"));
}

#[test]
fn an_invalid_id_is_replaced() {
    let long = format!("X-Request-Id: {}\r\n", "a".repeat(201));
    for fields in [
        "X-Request-Id: short\r\n",
        "X-Request-Id: \r\n",
        "X-Request-Id: 0123456789\u{e9}0123456789\r\n",
        "X-Request-Id: 0123456789\t0123456789\r\n",
        "X-Request-Id: 01234567890123456789\r\nX-Request-Id: 01234567890123456789\r\n",
        &long,
    ] {
        let (request, _) = pass(Config::default(), fields);
        let id = request.fields.one("x-request-id").expect(fields);
        assert!(is_made(&id), "{fields:?} became {id:?}");
    }
}

/// `Connection` is the client's, and the id may be that of a proxy that passed it on (RFC 9110
/// section 7.6.1 asks for the field to be removed; what the gateway reads itself is not).
#[test]
fn an_id_and_a_trace_cannot_be_removed_by_naming_them() {
    let fields = format!(
        "Connection: x-request-id, traceparent, tracestate\r\n\
         X-Request-Id: 01234567890123456789\r\n{TRACE}"
    );
    for start_trace in [false, true] {
        let (request, _) = pass(Config { start_trace, ..Config::default() }, &fields);
        assert_eq!(request.fields.all("x-request-id"), ["01234567890123456789"]);
        assert!(request.head.windows(TRACE.len()).any(|w| w == TRACE.as_bytes()));
    }
}

#[test]
fn without_request_id_the_clients_id_is_forwarded() {
    let config = Config { request_id: false, ..Config::default() };
    let (request, _) = pass(config.clone(), "X-Request-Id: short\r\nX-Request-Id: other\r\n");
    assert_eq!(request.fields.all("x-request-id"), ["short", "other"]);
    let (request, _) = pass(config, "");
    assert_eq!(request.fields.all("x-request-id").len(), 0);
}

#[test]
fn the_gateways_own_replies_carry_the_id() {
    let mesh = Mesh::start(Config::default(), vec![], None);
    let ask = |fields: &str| Client::connect(mesh.address()).ask(get(fields));
    let kept = ask("X-Request-Id: 01234567890123456789\r\n");
    assert_eq!((kept.status, kept.fields.one("x-request-id").unwrap().len()), (404, 20));
    let made = ask("");
    assert!(is_made(&made.fields.one("x-request-id").unwrap()));
    // Not even a head that was understood.
    let refused = Client::connect(mesh.address()).ask("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(refused.status, 400);
    assert!(is_made(&refused.fields.one("x-request-id").unwrap()));
}

const TRACE: &str = "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\
                     Tracestate: a=1,b=2\r\n";

#[test]
fn a_trace_is_forwarded_unchanged() {
    for start_trace in [false, true] {
        let config = Config { start_trace, ..Config::default() };
        let (request, _) = pass(config, TRACE);
        assert!(request.head.windows(TRACE.len()).any(|w| w == TRACE.as_bytes()));
        assert_eq!(request.fields.all("traceparent").len(), 1);
    }
    let (request, _) = pass(Config::default(), "Traceparent: nonsense\r\n");
    assert_eq!(request.fields.all("traceparent"), ["nonsense"]);
}

#[test]
fn start_trace_begins_a_missing_trace() {
    let config = Config { start_trace: true, ..Config::default() };
    let twice = format!("{TRACE}{TRACE}");
    for fields in ["", "Traceparent: nonsense\r\nTracestate: a=1\r\n", &twice] {
        let (request, _) = pass(config.clone(), fields);
        let begun = request.fields.one("traceparent").expect("one traceparent");
        assert!(begun.starts_with("00-") && begun.ends_with("-01") && begun.len() == 55);
        assert_eq!(request.fields.all("tracestate").len(), 0, "another trace's state");
    }
}

#[test]
fn server_timing_names_the_phases() {
    let config = Config { server_timing: true, ..Config::default() };
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(config, &endpoint.address);
    endpoint.script(vec![Do::Body, Do::Gate("slow"), send(ok("hello"))]);
    let mut client = Client::connect(mesh.address());
    client.send(get(""));
    endpoint.wait_for_requests(1);
    endpoint.open_gate("slow");
    let timing = client.response().fields.one("server-timing").expect("Server-Timing");
    let durations: Vec<f64> = timing
        .split(", ")
        .zip(["mesh;dur=", "upstream;dur="])
        .map(|(part, name)| part.strip_prefix(name).expect(name).parse().expect("a number"))
        .collect();
    assert_eq!(durations.len(), 2);
    assert!(durations.iter().all(|ms| *ms > 0.0 && *ms < 10_000.0), "{timing}");
    // Off unless asked for; what the endpoint says itself passes.
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    endpoint
        .script(reply("HTTP/1.1 200 OK\r\nServer-Timing: db;dur=1\r\nContent-Length: 0\r\n\r\n"));
    let response = Client::connect(mesh.address()).ask(get(""));
    assert_eq!(response.fields.all("server-timing"), ["db;dur=1"]);
}
