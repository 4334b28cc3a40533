//! What a request and its response look like after a hop.

use crate::nodes::nodes;
use crate::support::client::Client;
use crate::support::endpoint::Endpoint;

#[test]
fn a_request_reaches_an_endpoint_of_another_node() {
    let [a, b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    let mut client = Client::connect(a.mesh.address());
    for path in ["/one", "/two"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, path.as_bytes()));
    }
    let body = "x".repeat(200_000);
    let length = body.len();
    let answer = client.ask(format!(
        "POST /three HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    assert_eq!((answer.status, answer.body.as_slice()), (200, "/three".as_bytes()));
}
