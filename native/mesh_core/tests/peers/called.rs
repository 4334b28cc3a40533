//! Requests that come by a peer, for an application that is called.

use mesh_core::Config;
use mesh_core::calls::{ClientVersion, Framing};
use mesh_core::config::OnDisconnect;

use crate::nodes::{Node, nodes_with};
use crate::support::client::get;
use crate::support::endpoint::Endpoint;
use crate::support::http2::{self, Peer, answer};
use crate::support::run;
use crate::support::vm::{Vm, arrives};

/// The endpoint of `b` is called, and `a` has none.
fn called(config: &Config, vm: &Vm, socket: &Endpoint) -> [Node; 2] {
    let [a, b] = nodes_with(config);
    b.routes(&[vm.at(&socket.address)]);
    a.routes(&[a.peer(&b)]);
    [a, b]
}

#[test]
fn the_version_is_that_of_the_client_of_the_first_gateway() {
    let (vm, socket) = (Vm::start(), Endpoint::start());
    let [a, b] = called(&Config::default(), &vm, &socket);
    let mut client = a.client();
    let keep = "Connection: keep-alive\r\n";
    for (line, version) in [("1.0", ClientVersion::Http10), ("1.1", ClientVersion::Http11)] {
        client.send(format!("GET /x HTTP/{line}\r\nHost: a.test\r\nVia: 2.0 other\r\n{keep}\r\n"));
        let (call, seen) = vm.take();
        assert_eq!((seen.version, seen.target.as_str()), (version, "/x"));
        assert!(call.respond(200, b"called", false));
        assert_eq!(client.response().body, b"called");
    }
    run(async {
        let mut peer = Peer::connect(a.mesh.address()).await;
        let (response, _) = peer.begin(http2::get("a.test", "/2"), true).await;
        let vm = vm.clone();
        let serving = std::thread::spawn(move || {
            let (call, seen) = vm.take();
            assert_eq!(seen.version, ClientVersion::Http2);
            call.respond(200, b"two", false)
        });
        assert_eq!(answer(response).await.expect("an answer").body, b"two");
        assert!(serving.join().expect("no panic"));
    });
    assert_eq!(b.served_for_peers().requests, 3);
    assert_eq!(socket.look(|state| state.connections.len()), 0);
    a.is_well();
    b.is_well();
}

#[test]
fn a_client_that_resets_at_the_first_gateway_has_left() {
    for on_disconnect in [OnDisconnect::Ignore, OnDisconnect::Exit] {
        let (vm, socket) = (Vm::start(), Endpoint::start());
        let [a, _b] = called(&Config { on_disconnect, ..Config::default() }, &vm, &socket);
        for begins in [false, true] {
            let mut client = a.client();
            client.send(get(""));
            let (call, _) = vm.take();
            let gone = call.watch();
            if begins {
                call.head(200, &[], Framing::Chunked);
                client.read_until(b"\r\n\r\n").expect("the head");
            }
            client.reset();
            arrives(&gone);
        }
    }
}
