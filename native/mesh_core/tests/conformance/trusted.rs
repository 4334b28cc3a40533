//! Forwarded fields from a proxy that is trusted: appended to where they are lists, kept where they
//! say something once, never doubled. RFC 7239 section 4.

use std::net::IpAddr;

use mesh_core::Config;

use crate::cases::prelude::*;
use crate::run_with;

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
        keeps(
            "said twice is said by nobody",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
            vec![One("x-forwarded-proto", "http")],
        ),
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
fn trusted() {
    let everyone = "127.0.0.0/8".parse().expect("a network");
    run_with(Config { trusted_proxies: vec![everyone], ..Config::default() }, cases());
}

/// A dual-stack listener sees IPv4 clients in IPv6 clothes: they are told apart all the same.
#[test]
fn addresses_are_canonical() {
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
