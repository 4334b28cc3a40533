use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mesh_core::Config;
use mesh_core::config::Limits;
use mesh_core::observe::{
    AccessLog, CountedNotice, Format, Notice, ObserveConfig, ObserveError, Record, RecordField,
    Sink,
};

use crate::support::client::{Client, get, post};
use crate::support::endpoint::{Do, Endpoint, reply, send};
use crate::support::eventually;
use crate::support::mesh::{Mesh, service};

/// Keeps what it gets.
#[derive(Clone, Default)]
struct Kept {
    records: Arc<Mutex<Vec<String>>>,
    lines: Arc<Mutex<Vec<String>>>,
    notices: Arc<Mutex<Vec<CountedNotice>>>,
}

impl Sink for Kept {
    fn records(&mut self, records: &[&Record]) -> bool {
        self.records.lock().unwrap().extend(records.iter().map(|record| {
            let text = |field| String::from_utf8_lossy(record.fields.get(field)).into_owned();
            format!(
                "{} {} {}{} {} {} {} {:?}",
                text(RecordField::Service),
                text(RecordField::Method),
                text(RecordField::Host),
                text(RecordField::Path),
                record.status,
                record.received,
                record.sent,
                record.error.map(|error| error.kind),
            )
        }));
        true
    }

    fn lines(&mut self, lines: &[Vec<u8>]) -> bool {
        let lines = lines.iter().map(|line| String::from_utf8(line.clone()).expect("ASCII"));
        self.lines.lock().unwrap().extend(lines);
        true
    }

    fn notices(&mut self, notices: Vec<CountedNotice>) {
        self.notices.lock().unwrap().extend(notices);
    }
}

impl Kept {
    fn observe(&self, format: Option<Format>, query: bool) -> ObserveConfig {
        ObserveConfig {
            access_log: format.map(|format| AccessLog { format, query, path: None }),
            sample: if format.is_some() { 0.0 } else { 1.0 },
            sink: Some(Box::new(self.clone())),
        }
    }
}

/// Ends what is observed, so that everything has been handed out.
fn flush(mesh: &Mesh) {
    mesh.wait_idle();
    mesh.gateway.observe(ObserveConfig::default()).unwrap();
}

#[test]
fn every_request_has_one_record() {
    let endpoint = Endpoint::start();
    let services =
        vec![service("a.test", std::slice::from_ref(&endpoint.address)), service("none.test", &[])];
    let mesh = Mesh::start(Config::default(), services, None);
    let kept = Kept::default();
    mesh.gateway.observe(kept.observe(None, false)).unwrap();
    let address = mesh.address();
    let ask = |request: &str| Client::connect(address).ask(request).status;
    assert_eq!(ask("GET /a?secret=1 HTTP/1.1\r\nHost: a.test\r\n\r\n"), 200);
    assert_eq!(ask(&post("Content-Length: 5\r\n", "hello")), 200);
    assert_eq!(ask("GET /b HTTP/1.1\r\nHost: none.test\r\n\r\n"), 503);
    assert_eq!(ask("GET /c HTTP/1.1\r\nHost: other.test\r\n\r\n"), 404);
    assert_eq!(ask("GET  HTTP/1.1\r\n\r\n"), 400);
    endpoint.script(vec![
        Do::Body,
        send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Do::Close,
    ]);
    let mut client = Client::connect(address);
    client.send(get(""));
    client.read_to_end();
    endpoint.script(vec![Do::Body, Do::Gate("never"), Do::UntilClosed]);
    let mut client = Client::connect(address);
    client.send(get(""));
    endpoint.wait(" a request", |state| state.requests.len() == 4);
    client.reset();
    flush(&mesh);
    endpoint.open_gate("never");
    let stats = mesh.stats();
    let records = kept.records.lock().unwrap().clone();
    let replies: u64 = stats.gateway.response_body_bytes + stats.total.response_body_bytes;
    let sent: u64 =
        records.iter().map(|r| r.split(' ').nth(5).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sent, replies);
    // Without the sizes of the gateway's own words.
    let short = |r: &String| {
        let parts: Vec<&str> = r.split(' ').collect();
        if parts[6] == "None" { r.clone() } else { [&parts[..5], &parts[6..]].concat().join(" ") }
    };
    let mut seen: Vec<String> = records.iter().map(short).collect();
    seen.sort();
    let mut expected = vec![
        "a.test GET a.test/a 200 0 11 None",
        "a.test POST a.test/ 200 5 1 None",
        "none.test GET none.test/b 503 0 Some(\"not_listening\")",
        " GET other.test/c 404 0 Some(\"unknown_service\")",
        "   400 0 Some(\"bad_request\")",
        "a.test GET a.test/ 200 0 Some(\"upstream_closed\")",
        "a.test GET a.test/ 0 0 Some(\"client_gone\")",
    ];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    let counted =
        stats.total.requests + stats.gateway.requests_refused + stats.gateway.requests_unrouted;
    assert_eq!(records.len() as u64, counted);
    assert_eq!(stats.gateway.records_lost, 0);
}

fn log_of(format: Format, query: bool, request: &str) -> String {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let kept = Kept::default();
    mesh.gateway.observe(kept.observe(Some(format), query)).unwrap();
    endpoint.script(reply("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"));
    assert_eq!(Client::connect(mesh.address()).ask(request).status, 201);
    flush(&mesh);
    assert!(kept.records.lock().unwrap().is_empty(), "nothing was to be sampled");
    let mut lines = kept.lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

/// Whether the client began the trace or the gateway did, its log names it as the endpoint's does.
#[test]
fn a_trace_that_begins_here_is_named_in_the_log() {
    let endpoint = Endpoint::start();
    let config = Config { start_trace: true, ..Config::default() };
    let mesh = Mesh::to(config, &endpoint.address);
    let kept = Kept::default();
    mesh.gateway.observe(kept.observe(Some(Format::Json), false)).unwrap();
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
    flush(&mesh);
    let begun = endpoint.requests()[0].fields.one("traceparent").expect("one traceparent");
    let line = kept.lines.lock().unwrap().remove(0);
    let logged: serde_json::Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(logged["trace_id"], begun[3..35]);
}

const REQUEST: &str = "GET /p\"ath?key=secret HTTP/1.1\r\nHost: a.test\r\nCookie: s=secret\r\n\
    Authorization: Bearer secret\r\nReferer: http://r/\\\r\nUser-Agent: evil\"\tagent \u{e9}\r\n\
    X-Request-Id: 01234567890123456789\r\n\
    Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

#[test]
fn log_lines_have_the_common_and_the_combined_format() {
    let common = log_of(Format::Common, false, REQUEST);
    let (start, rest) = common.split_once(" - - [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(start, "127.0.0.1");
    assert_eq!((time.len(), &time[20..]), (26, " +0000"));
    assert_eq!(rest, r#""GET /p\"ath HTTP/1.1" 201 2"#);
    let combined = log_of(Format::Combined, true, REQUEST);
    let rest = combined.split_once("] ").unwrap().1;
    let expected =
        r#""GET /p\"ath?key=secret HTTP/1.1" 201 2 "http://r/\\" "evil\"\x09agent \xc3\xa9""#;
    assert_eq!(rest, expected);
}

#[test]
fn json_and_logfmt_have_the_same_values() {
    let json = log_of(Format::Json, false, REQUEST);
    let value: serde_json::Value = serde_json::from_str(&json).expect(&json);
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    assert_eq!((text("service"), text("host"), text("method")), ("a.test", "a.test", "GET"));
    assert_eq!((text("path"), text("protocol")), ("/p\"ath", "HTTP/1.1"));
    assert_eq!((text("referer"), text("user_agent")), ("http://r/\\", "evil\"\tagent \u{e9}"));
    assert_eq!(text("request_id"), "01234567890123456789");
    assert_eq!(text("trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&value["status"], &value["bytes_out"]), (&201.into(), &2.into()));
    assert!(value["duration_ms"].as_f64().unwrap() >= value["first_byte_ms"].as_f64().unwrap());
    assert_eq!((text("time").len(), json.contains("secret")), (24, false));
    let logfmt = log_of(Format::Logfmt, false, REQUEST);
    assert!(logfmt.contains(r#" path="/p\"ath" protocol=HTTP/1.1 status=201 "#), "{logfmt}");
    assert!(logfmt.contains(r#" user_agent="evil\"\x09agent \xc3\xa9""#), "{logfmt}");
    assert!(logfmt.starts_with("time=2") && !logfmt.contains("secret"));
}

/// What was wrong with a response is told to those who run the endpoint, and not to its client.
#[test]
fn the_reason_of_a_502_is_named() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    assert!(serde_json::to_value(mesh.service_stats()).unwrap()["last_bad_response"].is_null());
    let kept = Kept::default();
    mesh.gateway.observe(kept.observe(Some(Format::Json), false)).unwrap();
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n";
    for response in [two, two, chunk] {
        endpoint.script(vec![Do::Body, send(response), Do::UntilClosed]);
    }
    for _ in 0..3 {
        let answer = Client::connect(mesh.address()).ask(get(""));
        assert_eq!(answer.status, 502);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("not valid HTTP") && !body.contains("Length"), "{body}");
    }
    assert_eq!(Client::connect(mesh.address()).ask("GET  HTTP/1.1\r\n\r\n").status, 400);
    flush(&mesh);
    let lengths = "there are two different Content-Length fields";
    let sizes = "a chunk size is not hexadecimal";
    let lines = kept.lines.lock().unwrap();
    let mut logged: Vec<_> = lines
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_string();
            (text("error"), text("side"), text("reason"))
        })
        .collect();
    logged.sort();
    let expected = [
        ("bad_request", "downstream", "the method or the request target is malformed"),
        ("bad_response", "upstream", sizes),
        ("bad_response", "upstream", lengths),
        ("bad_response", "upstream", lengths),
    ];
    assert_eq!(logged, expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
    let mut told = std::collections::BTreeMap::new();
    for CountedNotice { notice, about, count } in kept.notices.lock().unwrap().iter() {
        assert_eq!(*notice, Notice::BadResponse);
        *told.entry(about.clone()).or_insert(0) += count;
    }
    let expected = [(format!("a.test: {sizes}"), 1), (format!("a.test: {lengths}"), 2)];
    assert_eq!(told.into_iter().collect::<Vec<_>>(), expected);
    let stats = serde_json::to_value(mesh.service_stats()).unwrap();
    assert_eq!(stats["last_bad_response"], sizes);
}

/// A file of its own in the directory for such things.
fn log_file(name: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("mesh-log-{}-{number}-{name}", std::process::id());
    std::env::temp_dir().join(name)
}

#[test]
fn a_rotated_log_file_is_opened_anew() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let path = log_file("access");
    let moved = path.with_extension("1");
    let access_log = AccessLog { format: Format::Common, query: false, path: Some(path.clone()) };
    let observe = ObserveConfig { access_log: Some(access_log), ..ObserveConfig::default() };
    mesh.gateway.observe(observe).unwrap();
    let lines = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let ask = || assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
    ask();
    eventually("a line", || lines(&path) == 1);
    std::fs::rename(&path, &moved).unwrap();
    ask();
    eventually("a line in the old file", || lines(&moved) == 2);
    mesh.gateway.reopen_log();
    eventually("the new file", || path.exists());
    ask();
    flush(&mesh);
    assert_eq!((lines(&moved), lines(&path)), (2, 1));
    for path in [path, moved] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let mesh = Mesh::start(Config::default(), vec![], None);
    let path = Some(log_file("no-directory").join("access.log"));
    let access_log = Some(AccessLog { format: Format::Json, query: false, path });
    let observe = ObserveConfig { access_log, ..ObserveConfig::default() };
    let error = mesh.gateway.observe(observe).unwrap_err();
    let ObserveError::LogFile(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_full_disk_loses_lines_and_is_reported() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let kept = Kept::default();
    let mut observe = kept.observe(Some(Format::Common), false);
    observe.access_log.as_mut().unwrap().path = Some("/dev/full".into());
    mesh.gateway.observe(observe).unwrap();
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
    flush(&mesh);
    assert_eq!(mesh.stats().gateway.records_lost, 1);
    let notices = kept.notices.lock().unwrap();
    let kinds: Vec<Notice> = notices.iter().map(|n| n.notice).collect();
    assert_eq!(kinds, [Notice::LogFile, Notice::RecordsLost]);
    assert!(notices[0].about.contains("space"), "{}", notices[0].about);
}

#[test]
fn notices_are_reported_once() {
    let endpoint = Endpoint::start();
    let dead = Endpoint::start().address.clone();
    // TCP leads to no multicast group, which the kernel says without sending anything.
    let no_way = mesh_core::UpstreamAddr::Tcp(([224, 0, 0, 1], 80).into());
    let services = vec![
        service("a.test", std::slice::from_ref(&endpoint.address)),
        service("dead.test", std::slice::from_ref(&dead)),
        service("far.test", &[no_way]),
    ];
    let limits = Limits { body_bytes: Some(1), ..Limits::default() };
    let mesh = Mesh::start(Config { limits, ..Config::default() }, services, None);
    let kept = Kept::default();
    mesh.gateway.observe(kept.observe(None, false)).unwrap();
    let ask = |request: &str| Client::connect(mesh.address()).ask(request).status;
    for _ in 0..3 {
        assert_eq!(ask("GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n"), 502);
        assert_eq!(ask("GET / HTTP/1.1\r\nHost: far.test\r\n\r\n"), 502);
        assert_eq!(ask(&post("Content-Length: 2\r\n", "ab")), 413);
        assert_eq!(ask(&get("")), 200);
    }
    let mesh_core::UpstreamAddr::Tcp(address) = dead else { panic!("TCP") };
    let _back = Endpoint::on(address);
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n"), 200);
    flush(&mesh);
    let mut totals = std::collections::BTreeMap::new();
    for CountedNotice { notice, about, count } in kept.notices.lock().unwrap().iter() {
        *totals.entry(format!("{notice:?} {about}")).or_insert(0) += count;
    }
    let expected = [
        ("Connect 224.0.0.1:80: Network is unreachable (os error 101)", 3),
        ("Limit body_bytes", 3),
        ("UpstreamDown dead.test", 1),
        ("UpstreamDown far.test", 1),
        ("UpstreamUp dead.test", 1),
    ];
    assert_eq!(totals.into_iter().collect::<Vec<_>>(), expected.map(|(k, n)| (k.to_string(), n)));
}
