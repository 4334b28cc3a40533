//! Forwarded fields from a proxy that is trusted: appended to where they are lists, kept where they
//! say something once, never doubled. RFC 7239 section 4.

use std::net::IpAddr;

use mesh_core::Config;

use crate::prelude::*;
use crate::run::{run_called_with, run_http2_with, run_with};

/// What the endpoint hears of the client's side.
fn told(proto: &'static str, host: &'static str, port: &'static str) -> Vec<Look> {
    vec![
        One("x-forwarded-proto", proto),
        One("x-forwarded-host", host),
        One("x-forwarded-port", port),
    ]
}

fn cases() -> Vec<Case> {
    let keeps = |name: &str, fields: &str, looks| {
        case(name, "RFC 7239 4", Must, get(fields), passed(looks)).ours()
    };
    vec![
        keeps(
            "nothing said",
            "",
            vec![
                One("x-forwarded-for", "127.0.0.1"),
                One("x-forwarded-proto", "http"),
                One("x-forwarded-host", "a.test"),
                One("x-forwarded-port", "80"),
                Lacks("forwarded"),
            ],
        ),
        keeps(
            "For is appended to",
            "X-Forwarded-For: 1.2.3.4\r\n",
            vec![One("x-forwarded-for", "1.2.3.4, 127.0.0.1")],
        ),
        keeps(
            "several lines become one",
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n",
            vec![One("x-forwarded-for", "1.2.3.4, 5.6.7.8, 127.0.0.1")],
        ),
        keeps(
            "an empty line adds nothing",
            "X-Forwarded-For:\r\nX-Forwarded-For: 1.2.3.4\r\n",
            vec![One("x-forwarded-for", "1.2.3.4, 127.0.0.1")],
        ),
        keeps(
            "Proto, Host and Port are kept",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: pub.test\r\nX-Forwarded-Port: 443\r\n",
            vec![
                One("x-forwarded-proto", "https"),
                One("x-forwarded-host", "pub.test"),
                One("x-forwarded-port", "443"),
            ],
        ),
        // Only the last can be known to be the trusted proxy's own.
        keeps(
            "of several lines the last counts",
            "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: evil.test\r\nX-Forwarded-Host: pub.test\r\n\
             X-Forwarded-Port: 1\r\nX-Forwarded-Port: 8443\r\n",
            told("https", "pub.test", "8443"),
        ),
        keeps(
            "of a list the last counts",
            "X-Forwarded-Proto: https, http\r\nX-Forwarded-Host: evil.test, pub.test\r\n",
            told("http", "pub.test", "80"),
        ),
        keeps(
            "a list of the same is one",
            "X-Forwarded-Proto: https,https\r\nX-Forwarded-Host: pub.test, pub.test\r\n",
            told("https", "pub.test", "443"),
        ),
        keeps(
            "capitals become small letters",
            "X-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: PUB.Test:8443\r\n",
            told("https", "pub.test:8443", "8443"),
        ),
        keeps("wss is https", "X-Forwarded-Proto: wss\r\n", told("https", "a.test", "443")),
        keeps("a scheme that is none", "X-Forwarded-Proto: ftp\r\n", told("http", "a.test", "80")),
        keeps("a host that is none", "X-Forwarded-Host: a b/c\r\n", told("http", "a.test", "80")),
        keeps("a port that is none", "X-Forwarded-Port: x\r\n", told("http", "a.test", "80")),
        case(
            "https means port 443",
            "RFC 9110 4.2.2",
            Must,
            get("X-Forwarded-Proto: https\r\n"),
            passed(told("https", "a.test", "443")),
        )
        .ours(),
        case(
            "a port in X-Forwarded-Host counts",
            "RFC 9110 4.2.2",
            Must,
            get("X-Forwarded-Proto: https\r\nX-Forwarded-Host: pub.test:8443\r\n"),
            passed(told("https", "pub.test:8443", "8443")),
        )
        .ours(),
        case(
            "a port in Host counts",
            "RFC 9110 4.2.2",
            Must,
            "GET / HTTP/1.1\r\nHost: a.test:8443\r\nX-Forwarded-Proto: https\r\n\r\n",
            passed(told("https", "a.test:8443", "8443")),
        )
        .ours(),
        case(
            "the port of another host does not count",
            "RFC 9110 4.2.2",
            Must,
            "GET / HTTP/1.1\r\nHost: a.test:4000\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: pub.test\r\n\r\n",
            passed(told("https", "pub.test", "443")),
        )
        .ours(),
        case(
            "an https target",
            "RFC 9110 7.4",
            Must,
            "GET https://a.test/b HTTP/1.1\r\nHost: a.test\r\n\r\n",
            passed([vec![Line("GET /b HTTP/1.1")], told("https", "a.test", "443")].concat()),
        )
        .ours(),
        keeps(
            "an empty Proto is none",
            "X-Forwarded-Proto:\r\n",
            vec![One("x-forwarded-proto", "http")],
        ),
        keeps(
            "Forwarded is appended to",
            "Forwarded: for=1.2.3.4;proto=https\r\n",
            vec![One(
                "forwarded",
                "for=1.2.3.4;proto=https, for=127.0.0.1;host=\"a.test\";proto=http",
            )],
        ),
        // A proxy that passes its client's Connection on does not lose its own fields by it.
        case(
            "named in Connection they stay all the same",
            "RFC 9110 7.6.1",
            Strict,
            get("Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, \
                 X-Forwarded-Port, Forwarded, Via, X-Forwarded-Prefix, X-Real-IP, X-Mine\r\n\
                 X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: pub.test\r\nX-Forwarded-Port: 444\r\n\
                 Forwarded: for=1.2.3.4\r\nVia: 1.1 front\r\nX-Forwarded-Prefix: /x\r\n\
                 X-Real-IP: 1.2.3.4\r\nX-Mine: 1\r\n"),
            passed(
                [
                    told("https", "pub.test", "444"),
                    vec![
                        One("x-forwarded-for", "1.2.3.4, 127.0.0.1"),
                        One("forwarded", "for=1.2.3.4, for=127.0.0.1;host=\"a.test\";proto=http"),
                        Lines("via", &["1.1 front", "1.1 mesh"]),
                        One("x-forwarded-prefix", "/x"),
                        One("x-real-ip", "1.2.3.4"),
                        Lacks("x-mine"),
                    ],
                ]
                .concat(),
            ),
        )
        .ours(),
        keeps(
            "names with underscores do not pass, from a trusted proxy either",
            "X_Forwarded_For: 1.2.3.4\r\nX_Forwarded_Proto: https\r\n",
            [
                told("http", "a.test", "80"),
                vec![One("x-forwarded-for", "127.0.0.1"), Lacks("x_forwarded_for")],
            ]
            .concat(),
        ),
    ]
}

#[test]
fn fields_of_trusted_proxies() {
    let everyone = "127.0.0.0/8".parse().expect("a network");
    let config = Config { trusted_proxies: vec![everyone], ..Config::default() };
    run_with(config.clone(), cases());
    run_called_with(config.clone(), cases());
    run_http2_with(config, cases());
}

/// A dual-stack listener sees IPv4 clients in IPv6 clothes: they are told apart all the same.
#[test]
fn an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_address() {
    let ips = vec![IpAddr::from([0u16; 8])];
    let network = "127.0.0.0/8".parse().expect("a network");
    let said = |trusted_proxies| {
        let endpoint = crate::support::endpoint::Endpoint::start();
        let config = Config { ips: ips.clone(), trusted_proxies, ..Config::default() };
        let mesh = crate::support::mesh::Mesh::to(config, &endpoint.address);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], mesh.address().port()));
        let mut client = crate::support::client::Client::connect(address);
        assert_eq!(client.ask(get("X-Forwarded-For: 1.2.3.4\r\n")).status, 200);
        endpoint.requests()[0].fields.all("x-forwarded-for")
    };
    assert_eq!(said(vec![]), ["127.0.0.1"]);
    assert_eq!(said(vec![network]), ["1.2.3.4, 127.0.0.1"]);
}
