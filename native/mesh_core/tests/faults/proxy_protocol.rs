//! The PROXY protocol (as HAProxy specifies it, versions 1 and 2), with a load balancer at
//! 127.0.0.2, which is trusted, and everybody else at 127.0.0.1, who is not.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mesh_core::Config;
use mesh_core::ProxyProtocol::{self, Any, V1, V2};

use crate::support::client::{Client, End, get};
use crate::support::scene::{Scene, ms};

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 80\r\n";
const LINE_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 80\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNSPEC: u8 = 0;
const IPV4: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0, 80];
const IPV6: [u8; 36] = [
    0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 1, 0x12, 0x34, 0, 80,
];
/// PP2_TYPE_SSL (section 2.2.7): the client uses TLS and showed no certificate.
const SSL: [u8; 8] = [0x20, 0, 5, 1, 0, 0, 0, 1];
/// PP2_TYPE_AUTHORITY (section 2.2.2).
const AUTHORITY: [u8; 9] = [2, 0, 6, b'b', b'.', b't', b'e', b's', b't'];

fn v2(command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    let size = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &size, &rest].concat()
}

fn scene(version: ProxyProtocol, change: impl FnOnce(&mut Config)) -> Scene {
    Scene::new(|config| {
        config.trusted_proxies = vec![LOAD_BALANCER.into()];
        config.proxy_protocol = Some(version);
        change(config);
    })
}

fn load_balancer(scene: &Scene) -> Client {
    Client::connect_from(LOAD_BALANCER, scene.mesh.address())
}

/// What the endpoint was told of the client of its last request.
fn forwarded_for(scene: &Scene) -> String {
    let requests = scene.endpoint.requests();
    requests.last().expect("a request").fields.one("x-forwarded-for").expect("one field")
}

/// Refused with this status, and closed; nothing of it has got to the endpoint.
fn is_refused(scene: &Scene, mut client: Client, status: u16, what: &[u8]) {
    let what = what.escape_ascii().to_string();
    let answer = client.response();
    assert_eq!(answer.status, status, "{what}");
    let why = String::from_utf8_lossy(&answer.body);
    assert!(status != 400 || why.contains("PROXY protocol"), "{what}: {why}");
    assert_eq!(client.read_to_end(), End::Closed, "{what}");
    assert!(scene.endpoint.requests().is_empty(), "{what}");
}

/// All of these were refused, each for one reason.
fn are_counted(scene: &Scene, bad: u64, late: u64) {
    scene.mesh.eventually("each refusal is counted", |stats| {
        let gateway = &stats.gateway;
        let errors = &gateway.errors;
        (gateway.requests_refused, gateway.responses_4xx) == (bad + late, bad + late)
            && (errors.bad_request, errors.head_timeout) == (bad, late)
    });
}

#[test]
fn the_header_names_the_client() {
    let v4 = v2(PROXY, TCP4, &[&IPV4]);
    let v6 = v2(PROXY, TCP6, &[&IPV6]);
    let with_more = v2(PROXY, TCP4, &[&IPV4, &AUTHORITY]);
    let lines = [(LINE, "203.0.113.7"), (LINE_IPV6, "2001:db8::7")];
    let binary = [(&v4[..], "203.0.113.7"), (&v6, "2001:db8::7"), (&with_more, "203.0.113.7")];
    for (version, headers) in
        [(V1, lines.to_vec()), (V2, binary.to_vec()), (Any, [&lines[..], &binary].concat())]
    {
        let scene = scene(version, |_| {});
        for (header, client) in headers {
            let mut balancer = load_balancer(&scene);
            // What that client says of itself is not believed: it is not the load balancer.
            balancer.send([header, get("X-Forwarded-For: 10.9.8.7\r\n").as_bytes()].concat());
            assert_eq!(balancer.response().status, 200);
            assert_eq!(forwarded_for(&scene), client);
            // Announced once, it holds for the connection.
            for _ in 0..3 {
                assert_eq!(balancer.ask(get("")).status, 200);
                assert_eq!(forwarded_for(&scene), client);
            }
        }
        scene.ends_clean();
    }
}

#[test]
fn the_header_may_come_in_pieces() {
    let scene = scene(Any, |_| {});
    let binary = v2(PROXY, TCP4, &[&IPV4, &AUTHORITY]);
    for header in [LINE, &binary] {
        let all = [header, get("").as_bytes()].concat();
        for cut in [1, 5, 6, 12, 13, 15, 16, 20, header.len() - 1, header.len(), header.len() + 5] {
            let mut balancer = load_balancer(&scene);
            balancer.send(&all[..cut]);
            // The gateway has been round since, and has seen the piece.
            scene.others_are_served();
            balancer.send(&all[cut..]);
            assert_eq!(balancer.response().status, 200, "cut at {cut}");
            assert_eq!(forwarded_for(&scene), "203.0.113.7", "cut at {cut}");
        }
        let mut balancer = load_balancer(&scene);
        for byte in &all {
            balancer.send([*byte]);
        }
        assert_eq!(balancer.response().status, 200);
        assert_eq!(forwarded_for(&scene), "203.0.113.7");
    }
    scene.ends_clean();
}

/// Health checks, and families that have no address: the load balancer is the client, and is
/// believed what it says of others.
#[test]
fn a_header_without_an_address_means_the_load_balancer() {
    let scene = scene(Any, |_| {});
    let unix = [b'/'; 216];
    for header in [
        UNKNOWN,
        b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 4660 80\r\n",
        &v2(LOCAL, UNSPEC, &[]),
        &v2(LOCAL, TCP4, &[&IPV4]),
        &v2(PROXY, UNSPEC, &[]),
        &v2(PROXY, 0x31, &[&unix]),
    ] {
        let mut balancer = load_balancer(&scene);
        balancer.send([header, get("X-Forwarded-For: 10.9.8.7\r\n").as_bytes()].concat());
        assert_eq!(balancer.response().status, 200, "{:?}", header.escape_ascii().to_string());
        assert_eq!(forwarded_for(&scene), "10.9.8.7, 127.0.0.2");
    }
    scene.ends_clean();
}

#[test]
fn a_malformed_header_gives_400() {
    let broken = |at: usize, byte: u8| {
        let mut header = v2(PROXY, TCP4, &[&IPV4]);
        header[at] = byte;
        header
    };
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let lines: [&[u8]; 12] = [
        b"PROXY\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 203.0.113.7 192.0.2.1 4660 80\r\n",
        b"PROXY TCP4 203.0.113.777 192.0.2.1 4660 80\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4660 80\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 65536\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 80 90\r\n",
        b"PROXY TCP4  203.0.113.7 192.0.2.1 4660 80\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 80\n",
        b"proxy TCP4 203.0.113.7 192.0.2.1 4660 80\r\n",
        b"\r\nPROXY UNKNOWN\r\n",
        &endless,
    ];
    let binary = [
        // The version, the command, the family, a length that is too short for it, the signature.
        broken(12, 0x11),
        broken(12, 0x2f),
        broken(13, 0x41),
        broken(15, 11),
        broken(11, b'\r'),
        // More than is granted to it.
        broken(14, 0x20),
    ];
    let binary: Vec<&[u8]> = binary.iter().map(Vec::as_slice).collect();
    // Right, but not in the version that was agreed upon.
    let (v2, line) = (v2(PROXY, TCP4, &[&IPV4]), LINE);
    for (version, headers) in [
        (V1, [&lines[..], &[&v2]].concat()),
        (V2, [&binary[..], &[line]].concat()),
        (Any, [&lines[..], &binary].concat()),
    ] {
        let scene = scene(version, |_| {});
        for header in &headers {
            let mut balancer = load_balancer(&scene);
            balancer.send([header, get("").as_bytes()].concat());
            is_refused(&scene, balancer, 400, header);
        }
        are_counted(&scene, headers.len() as u64, 0);
        scene.ends_clean();
    }
}

/// Whoever may announce must, or a client could pass for the load balancer through it.
#[test]
fn a_load_balancer_without_a_header_is_refused() {
    for version in [V1, V2, Any] {
        let scene = scene(version, |_| {});
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_string();
        for request in [get(""), get("X-Forwarded-For: 10.9.8.7\r\n"), preface] {
            let mut balancer = load_balancer(&scene);
            balancer.send(&request);
            is_refused(&scene, balancer, 400, request.as_bytes());
        }
        are_counted(&scene, 3, 0);
        scene.ends_clean();
    }
}

/// It is no header there, but the beginning of a request, and a wrong one.
#[test]
fn a_header_from_another_client_is_refused() {
    for version in [V1, V2, Any] {
        let scene = scene(version, |_| {});
        for header in [LINE, UNKNOWN, &v2(PROXY, TCP4, &[&IPV4]), &v2(LOCAL, UNSPEC, &[])] {
            let mut client = scene.client();
            client.send([header, get("").as_bytes()].concat());
            is_refused(&scene, client, 400, header);
        }
        are_counted(&scene, 4, 0);
        assert_eq!(scene.client().ask(get("X-Forwarded-For: 10.9.8.7\r\n")).status, 200);
        assert_eq!(forwarded_for(&scene), "127.0.0.1");
        scene.ends_clean();
    }
}

/// Once per connection: further on it is a request, and a wrong one.
#[test]
fn a_second_header_is_refused() {
    let scene = scene(Any, |_| {});
    for second in [LINE, &v2(PROXY, TCP4, &[&IPV4])] {
        for between in ["", &get("")] {
            let mut balancer = load_balancer(&scene);
            balancer.send([LINE, between.as_bytes(), second].concat());
            if !between.is_empty() {
                assert_eq!(balancer.response().status, 200);
            }
            assert_eq!(balancer.response().status, 400);
            assert_eq!(balancer.read_to_end(), End::Closed);
        }
    }
    are_counted(&scene, 4, 0);
    scene.ends_clean();
}

#[test]
fn a_late_header_gives_408() {
    let scene = scene(Any, |config| config.timeouts.head = ms(200));
    let binary = v2(PROXY, TCP4, &[&IPV4]);
    for begun in [b"".as_slice(), b"P", &LINE[..20], &LINE[..LINE.len() - 1], &binary[..13]] {
        let mut balancer = load_balancer(&scene);
        balancer.send(begun);
        is_refused(&scene, balancer, 408, begun);
    }
    // Nor while it trickles in.
    let mut balancer = load_balancer(&scene);
    let mut sender = balancer.sender();
    let trickle = std::thread::spawn(move || {
        for byte in v2(PROXY, TCP4, &[&IPV4, &[0; 4000]]) {
            if sender.write_all(&[byte]).is_err() {
                return;
            }
            // The pace of the attack, not a wait for anything.
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(balancer.response().status, 408);
    balancer.hang_up();
    trickle.join().unwrap();
    are_counted(&scene, 0, 6);
    scene.ends_clean();
}

/// With the header the wait for a request begins, which is another one.
#[test]
fn a_connection_idle_after_its_header_is_closed() {
    let scene = scene(Any, |config| {
        config.timeouts.head = ms(500);
        config.timeouts.idle = ms(800);
    });
    let mut balancer = load_balancer(&scene);
    balancer.send(LINE);
    assert_eq!(balancer.read_to_end(), End::Closed);
    assert!(balancer.buffer.is_empty(), "an idle connection just closes");
    are_counted(&scene, 0, 0);
    drop(balancer);
    scene.ends_clean();
}

#[test]
fn a_load_balancer_may_leave_within_the_header() {
    let scene = scene(Any, |_| {});
    let binary = v2(PROXY, TCP4, &[&IPV4]);
    for begun in [b"".as_slice(), b"P", LINE, &LINE[..20], &binary[..13], &binary] {
        for reset in [false, true] {
            let mut balancer = load_balancer(&scene);
            balancer.send(begun);
            if reset { balancer.reset() } else { drop(balancer) }
        }
    }
    assert_eq!(scene.mesh.stats().gateway.responses_4xx, 0);
    scene.ends_clean();
}

/// Limits for each client are for those announced: all come from one load balancer.
#[test]
fn connections_per_client_counts_the_address_in_the_header() {
    let scene = scene(Any, |config| config.limits.connections_per_client = Some(1));
    let mut first = load_balancer(&scene);
    assert_eq!(first.ask([LINE, get("").as_bytes()].concat()).status, 200);
    let mut again = load_balancer(&scene);
    assert_eq!(again.ask([LINE, get("").as_bytes()].concat()).status, 503);
    assert_eq!(scene.mesh.stats().gateway.limits.connections_per_client, 1);
    let mut second = load_balancer(&scene);
    assert_eq!(second.ask([LINE_IPV6, get("").as_bytes()].concat()).status, 200);
    drop((first, again, second));
    scene.mesh.wait_idle();
    scene.ends_clean();
}

/// PP2_TYPE_SSL (section 2.2.7) is the only word of TLS there is where TCP is forwarded.
#[test]
fn a_header_with_tls_means_https() {
    let scene = scene(Any, |_| {});
    let told = |header: &[u8], request: &str| {
        let mut balancer = load_balancer(&scene);
        balancer.send([header, request.as_bytes()].concat());
        assert_eq!(balancer.response().status, 200);
        let requests = scene.endpoint.requests();
        let fields = &requests.last().expect("a request").fields;
        ["x-forwarded-proto", "x-forwarded-port"].map(|name| fields.one(name).expect(name))
    };
    let with = |tlvs: &[u8]| v2(PROXY, TCP4, &[&IPV4, tlvs]);
    let with_subtypes = [0x20, 0, 13, 5, 0, 0, 0, 0, 0x21, 0, 5, b'T', b'L', b'S', b'v', b'1'];
    let behind_another = [&AUTHORITY[..], &SSL].concat();
    for tlvs in [&SSL[..], &with_subtypes, &behind_another] {
        let header = with(tlvs);
        assert_eq!(told(&header, &get("")), ["https", "443"]);
        // What the client says itself is not believed, and an https target is right (RFC 9110 7.4).
        assert_eq!(told(&header, &get("X-Forwarded-Proto: http\r\n")), ["https", "443"]);
        let target = "GET https://a.test:8443/ HTTP/1.1\r\nHost: a.test:8443\r\n\r\n";
        assert_eq!(told(&header, target), ["https", "8443"]);
    }
    let flags_are_none = [0x20, 0, 5, 0, 0, 0, 0, 1];
    let flags_are_others = [0x20, 0, 5, 6, 0, 0, 0, 0];
    let too_short = [0x20, 0, 1, 1];
    let cut_off = [0x20, 0, 99, 1, 0, 0, 0, 0];
    for tlvs in [&flags_are_none[..], &flags_are_others, &too_short, &cut_off, &AUTHORITY, &[]] {
        assert_eq!(told(&with(tlvs), &get("")), ["http", "80"], "{tlvs:?}");
    }
    // A load balancer that speaks for itself has no client.
    assert_eq!(told(&v2(LOCAL, TCP4, &[&IPV4, &SSL]), &get("")), ["http", "80"]);
    scene.ends_clean();
}

/// `::ffff:203.0.113.7` is 203.0.113.7, for whatever is counted or compared.
#[test]
fn an_ipv4_address_mapped_to_ipv6_is_the_same_client() {
    let scene = scene(Any, |config| {
        config.limits.connections_per_client = Some(1);
        config.trusted_proxies.push("198.51.100.0/24".parse().expect("a network"));
    });
    let mapped = |line: &str| line.replace("TCP4", "TCP6").replace(" 203.", " ::ffff:203.");
    let line = "PROXY TCP4 203.0.113.7 203.0.113.1 4660 80\r\n";
    let ask = |line: &str, fields: &str| {
        let mut balancer = load_balancer(&scene);
        balancer.send(line.to_string() + &get(fields));
        let status = balancer.response().status;
        (balancer, status)
    };
    let (first, status) = ask(&mapped(line), "");
    assert_eq!((status, forwarded_for(&scene).as_str()), (200, "203.0.113.7"));
    assert_eq!(ask(line, "").1, 503);
    drop(first);
    scene.mesh.wait_idle();
    let (first, status) = ask(line, "");
    assert_eq!(status, 200);
    assert_eq!(ask(&mapped(line), "").1, 503);
    drop(first);
    let trusted = "PROXY TCP6 ::ffff:198.51.100.7 ::1 4660 80\r\n";
    assert_eq!(ask(trusted, "X-Forwarded-For: 10.9.8.7\r\n").1, 200);
    assert_eq!(forwarded_for(&scene), "10.9.8.7, 198.51.100.7");
    scene.ends_clean();
}
