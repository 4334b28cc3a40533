//! Routing held against a model that is too simple to be wrong, and tables that are swapped while
//! requests flow.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_core::{Config, Gateway, Resolved, RouteError, Rule, ServiceSpec};
use proptest::prelude::*;

use support::client::Client;
use support::endpoint::Endpoint;
use support::mesh::{Mesh, service};

/// Few letters, so that names meet: `a.b`, `b`, `a.a.b`.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::collection::vec("[ab]{1,2}", 1..5).prop_map(|labels| labels.join(".")),
        1 => Just("127.0.0.1".to_string()),
        1 => Just("[::1]".to_string()),
        // What an address would end in, were it a name.
        1 => prop_oneof![Just("1"), Just("0.1"), Just("0.0.1")].prop_map(String::from),
    ]
}

/// The same host as somebody might write it.
fn spelling(host: String) -> impl Strategy<Value = (String, String)> {
    let address = host.starts_with('[');
    (any::<u32>(), any::<bool>(), prop_oneof![Just(""), Just(":80"), Just(":4000"), Just(":")])
        .prop_map(move |(capitals, dot, port)| {
            let mixed: String = host
                .chars()
                .enumerate()
                .map(
                    |(i, c)| {
                        if capitals >> (i % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c }
                    },
                )
                .collect();
            let dot = if dot && !address { "." } else { "" };
            (host.clone(), format!("{mixed}{dot}{port}"))
        })
}

/// Exact, else the longest suffix at a dot (not for addresses), else the default.
fn model(
    table: &BTreeMap<String, usize>,
    default: Option<&str>,
    host: &str,
) -> Option<(Rule, String)> {
    if table.contains_key(host) {
        return Some((Rule::Exact, host.to_string()));
    }
    let is_address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
    let suffixes = table.keys().filter(|key| host.ends_with(&format!(".{key}")) && !is_address);
    if let Some(longest) = suffixes.max_by_key(|key| key.len()) {
        return Some((Rule::Suffix, longest.clone()));
    }
    default.map(|host| (Rule::Default, host.to_string()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn routes_are_those_of_the_model(
        hosts in prop::collection::btree_map(host(), 0..4usize, 0..12),
        asked in prop::collection::vec(host().prop_flat_map(spelling), 1..20),
        default in any::<prop::sample::Index>(),
        has_default in any::<bool>(),
    ) {
        let mut services: BTreeMap<usize, ServiceSpec> = BTreeMap::new();
        for (host, owner) in &hosts {
            let name = format!("s{owner}");
            let spec = ServiceSpec { hosts: Vec::new(), ..ServiceSpec::new(&name, Vec::new()) };
            services.entry(*owner).or_insert(spec).hosts.push(host.clone());
        }
        let keys: Vec<&String> = hosts.keys().collect();
        let default = (has_default && !keys.is_empty()).then(|| default.get(&keys).as_str());
        let gateway = Gateway::open(Config::default()).unwrap();
        gateway.set_routes(services.into_values().collect(), default).unwrap();
        for (host, written) in &asked {
            let want = model(&hosts, default, host).map(|(rule, key)| {
                let service = format!("s{}", hosts[&key]);
                Resolved { rule, host: key, service }
            });
            prop_assert_eq!(gateway.resolve(written), want, "{}", written);
        }
    }

    #[test]
    fn an_invalid_host_has_no_route(junk in "[ /@#?\\\\:\\[\\]a.\\x00\\x7f\u{e9}-]{0,12}") {
        let gateway = Gateway::open(Config::default()).unwrap();
        gateway.set_routes(vec![service("a", &[])], Some("a")).unwrap();
        // Must not panic; what it accepts must be a host by a second opinion.
        if gateway.resolve(&junk).is_some() {
            let good = |c: char| c.is_ascii() && !" /@#?\\\0\x7f".contains(c);
            prop_assert!(junk.chars().all(good), "{:?}", junk);
        }
    }

    /// A table that is refused leaves the one before as it was.
    #[test]
    fn a_refused_table_changes_nothing(host in "[a-c]{1,3}", bad in "[ /@]{1,3}") {
        let gateway = Gateway::open(Config::default()).unwrap();
        gateway.set_routes(vec![service(&host, &[])], None).unwrap();
        let is_bad = |e| matches!(e, RouteError::BadHost { .. });
        let refused = gateway.set_routes(vec![service("x", &[]), service(&bad, &[])], None);
        prop_assert!(refused.is_err_and(is_bad));
        let twice = ServiceSpec { name: "other".into(), ..service(&host, &[]) };
        let is_conflict = |e| matches!(e, RouteError::Conflict { .. });
        let refused = gateway.set_routes(vec![service(&host, &[]), twice], None);
        prop_assert!(refused.is_err_and(is_conflict));
        prop_assert!(gateway.set_routes(vec![], Some("nobody")).is_err());
        prop_assert_eq!(gateway.resolve(&host).map(|r| r.service), Some(host));
        prop_assert_eq!(gateway.resolve("x"), None);
    }
}

/// Two endpoints change places hundreds of times, hosts come and go, and all the while clients ask.
/// Every answer must come from an endpoint that the host led to at some moment of the request, and
/// hosts that never change must never fail.
#[test]
fn tables_are_swapped_while_requests_flow() {
    let (left, right) = (Endpoint::start(), Endpoint::start());
    let config = Config { workers: 2, ..Config::default() };
    let table = |swapped: bool, extra: usize| {
        let (one, two) = if swapped { (&right, &left) } else { (&left, &right) };
        let mut services = vec![
            service("one.test", std::slice::from_ref(&one.address)),
            service("two.test", std::slice::from_ref(&two.address)),
            service("fixed.test", std::slice::from_ref(&left.address)),
        ];
        services.extend((0..extra).map(|i| service(&format!("x{i}.test"), &[])));
        services
    };
    let mesh = Mesh::start(config, table(false, 0), None);
    let address = mesh.address();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = ["one.test", "two.test", "fixed.test", "t.one.test"]
        .into_iter()
        .map(|host| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let target = format!("/{host}/{n}");
                    let answer =
                        client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                    assert_eq!((answer.status, answer.body), (200, target.into_bytes()));
                    n += 1;
                }
                n
            })
        })
        .collect();
    for swap in 0..400 {
        mesh.gateway.set_routes(table(swap % 2 == 0, swap % 50), None).unwrap();
    }
    // And once more slowly, so that every client meets every table.
    for swap in 0..10 {
        let before = left.requests().len() + right.requests().len();
        mesh.gateway.set_routes(table(swap % 2 == 0, 0), None).unwrap();
        support::eventually("requests go on", || {
            left.requests().len() + right.requests().len() > before + 40
        });
    }
    stop.store(true, Ordering::Relaxed);
    let asked: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
    let (at_left, at_right) = (left.requests(), right.requests());
    assert_eq!(at_left.len() + at_right.len(), asked, "each was sent once");
    assert!(at_right.iter().all(|r| !r.target.starts_with("/fixed")), "sent to the wrong endpoint");
    mesh.wait_idle();
    // The last word: what is asked after a swap is answered by the new table.
    for swapped in [false, true, false] {
        mesh.gateway.set_routes(table(swapped, 0), None).unwrap();
        let (one, before) =
            if swapped { (&right, right.requests().len()) } else { (&left, left.requests().len()) };
        let answer = Client::connect(address).ask("GET / HTTP/1.1\r\nHost: one.test\r\n\r\n");
        assert_eq!(answer.status, 200);
        assert_eq!(one.requests().len(), before + 1);
    }
}

/// A request without a host goes to the default and is told the default's host (RFC 9112 section
/// 3.2): that of the same table, however often the default changes.
#[test]
fn the_default_changes_while_requests_without_a_host_flow() {
    let (left, right) = (Endpoint::start(), Endpoint::start());
    let services = || {
        vec![
            service("left.test", std::slice::from_ref(&left.address)),
            service("right.test", std::slice::from_ref(&right.address)),
        ]
    };
    let mesh = Mesh::start(Config::default(), services(), Some("left.test"));
    let address = mesh.address();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(100);
            while !stop.load(Ordering::Relaxed) {
                client.send(&request);
                (0..100).for_each(|_| assert_eq!(client.response().status, 200));
            }
        })
    };
    let asked = |endpoint: &Endpoint| endpoint.look(|state| state.requests.len());
    let mut defaults = ["left.test", "right.test"].into_iter().cycle();
    support::eventually("requests flow", || {
        // An odd number, so that either is the default while the machine does something else.
        for default in defaults.by_ref().take(201) {
            mesh.gateway.set_routes(services(), Some(default)).unwrap();
        }
        asked(&left) > 1000 && asked(&right) > 1000
    });
    stop.store(true, Ordering::Relaxed);
    asking.join().unwrap();
    for (endpoint, host) in [(&left, "left.test"), (&right, "right.test")] {
        let requests = endpoint.requests();
        let told = |r: &support::wire::Request| r.fields.one("host").as_deref() == Some(host);
        assert!(requests.iter().all(told), "{host} was told another's host");
    }
}

/// A large table is built, swapped in and asked while traffic flows, and lookups do not slow down
/// with its size (that is measured elsewhere; here it must simply be right).
#[test]
fn a_table_of_many_hosts_finds_each() {
    let endpoint = Endpoint::start();
    let mut services: Vec<ServiceSpec> =
        (0..20_000).map(|i| service(&format!("s{i}.test"), &[])).collect();
    services.push(service("a.test", std::slice::from_ref(&endpoint.address)));
    let mesh = Mesh::start(Config::default(), services, None);
    for i in (0..20_000).step_by(997) {
        let resolved = mesh.gateway.resolve(&format!("t.s{i}.test")).map(|r| (r.rule, r.host));
        assert_eq!(resolved, Some((Rule::Suffix, format!("s{i}.test"))));
    }
    assert_eq!(Client::connect(mesh.address()).ask(support::client::get("")).status, 200);
}
