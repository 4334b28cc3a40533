//! A hop changes nothing: the endpoint and the client see what they see with one gateway.

use mesh_core::Config;

use crate::nodes::{Node, nodes_with};
use crate::support::client::Client;
use crate::support::endpoint::{Do, Endpoint, Script, ok, reply, send};
use crate::support::http2::{Peer, answer, request, send as upload};
use crate::support::run;
use crate::support::wire::{Request, Response};

/// One gateway, and two of which the first has no endpoint.
struct Scene {
    one: Node,
    a: Node,
    b: Node,
    near: Endpoint,
    far: Endpoint,
}

/// What the endpoint and the client saw.
#[derive(Debug, PartialEq)]
struct Outcome {
    seen: Vec<String>,
    got: Vec<String>,
}

impl Scene {
    fn new(config: &Config) -> Scene {
        let one = Node::start("one", config.clone());
        let [a, b] = nodes_with(config);
        let (near, far) = (Endpoint::start(), Endpoint::start());
        one.routes(std::slice::from_ref(&near.address));
        b.routes(std::slice::from_ref(&far.address));
        a.routes(&[a.peer(&b)]);
        Scene { one, a, b, near, far }
    }

    fn check(&self, name: &str, bytes: impl AsRef<[u8]>, script: Script) {
        let bytes = bytes.as_ref();
        let with_one = exchange(&self.one, &self.near, bytes, script.clone());
        let with_two = exchange(&self.a, &self.far, bytes, script);
        assert!(!with_one.got.is_empty(), "{name}: no response");
        assert_eq!(with_two, with_one, "{name}");
        for node in [&self.one, &self.a, &self.b] {
            node.is_well();
        }
    }
}

fn exchange(node: &Node, endpoint: &Endpoint, bytes: &[u8], script: Script) -> Outcome {
    endpoint.forget();
    if !script.is_empty() {
        endpoint.script(script);
    }
    let mut client = Client::connect(node.mesh.address());
    client.send(bytes);
    let mut got = Vec::new();
    loop {
        let response = client.try_response(bytes.starts_with(b"HEAD")).expect("a response");
        let ends = response.is_final();
        got.push(told(&response));
        if ends {
            break;
        }
    }
    client.read_again().expect("another reading");
    let port = node.mesh.address().port().to_string();
    let seen = endpoint.requests().iter().map(asked).map(|it| it.replace(&port, "PORT")).collect();
    Outcome { seen, got }
}

/// Without values that are random.
fn asked(request: &Request) -> String {
    let head = String::from_utf8_lossy(&request.head);
    let lines = head.split_inclusive("\r\n").map(|line| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "X-Request-Id" if !value.starts_with("given") => format!("{name}: made\r\n"),
            "Traceparent" => format!("{name}: made\r\n"),
            _ => line.to_string(),
        }
    });
    let head: String = lines.collect();
    format!("{head}{}", request.raw_body.escape_ascii())
}

fn told(response: &Response) -> String {
    let names =
        |name: &str| name.eq_ignore_ascii_case("date") || name.eq_ignore_ascii_case("x-request-id");
    let fields = response.fields.0.iter().map(|(name, value)| {
        let value = if names(name) { "*".into() } else { value.escape_ascii().to_string() };
        format!("{name}: {value}\n")
    });
    // Fields of different names have no order.
    let mut fields: Vec<String> = fields.collect();
    fields.sort_by_key(|field| field.split(':').next().map(str::to_lowercase));
    let fields = fields.concat();
    let body = response.body.escape_ascii();
    format!("{}\n{fields}\n{body}\n{:?}", response.line, response.trailers)
}

fn config() -> Config {
    Config { trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")], ..Config::default() }
}

const H: &str = "Host: a.test\r\n";

#[test]
fn request_heads_are_the_same_for_the_endpoint() {
    let trusting = Scene::new(&config());
    let plain = Scene::new(&Config::default());
    let tracing = Scene::new(&Config { start_trace: true, ..Config::default() });
    let heads = [
        ("plain", format!("GET /a?b=c HTTP/1.1\r\n{H}User-Agent: x\r\n\r\n")),
        ("port", "GET / HTTP/1.1\r\nHost: a.test:4321\r\n\r\n".into()),
        ("absolute", format!("GET http://a.test:81/x?y HTTP/1.1\r\n{H}\r\n")),
        ("absolute, no path", format!("GET http://a.test HTTP/1.1\r\n{H}\r\n")),
        ("HTTP/1.0", format!("GET /old HTTP/1.0\r\n{H}\r\n")),
        ("HTTP/1.0, kept", format!("GET /old HTTP/1.0\r\n{H}Connection: keep-alive\r\n\r\n")),
        ("HTTP/1.0 without a host", "GET /old HTTP/1.0\r\n\r\n".into()),
        ("close", format!("GET /x HTTP/1.1\r\n{H}Connection: close\r\n\r\n")),
        (
            "forwarded fields",
            format!(
                "GET / HTTP/1.1\r\n{H}X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: other.test\r\nX-Forwarded-Port: 443\r\n\
                 Forwarded: for=192.0.2.1;proto=https\r\nX-Real-Ip: 192.0.2.1\r\n\r\n"
            ),
        ),
        ("id", format!("GET / HTTP/1.1\r\n{H}X-Request-Id: given-0123456789abcdef01\r\n\r\n")),
        ("bad id", format!("GET / HTTP/1.1\r\n{H}X-Request-Id: a b\r\n\r\n")),
        ("via", format!("GET / HTTP/1.1\r\n{H}Via: 1.1 cdn, 1.1 mesh\r\n\r\n")),
        ("passes", format!("GET / HTTP/1.1\r\n{H}Via: 1.1 mesh, 1.1 mesh, 1.1 mesh\r\n\r\n")),
        (
            "trace",
            format!(
                "GET / HTTP/1.1\r\n{H}Traceparent: 00-{}-{}-01\r\nTracestate: a=b\r\n\r\n",
                "1".repeat(32),
                "2".repeat(16)
            ),
        ),
        (
            "hop by hop",
            format!(
                "GET / HTTP/1.1\r\n{H}Connection: x-mine, keep-alive\r\nX-Mine: 1\r\n\
                 Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: close\r\n\
                 Cookie: a=1\r\nCookie: b=2\r\n\r\n"
            ),
        ),
        ("Max-Forwards", format!("OPTIONS / HTTP/1.1\r\n{H}Max-Forwards: 5\r\n\r\n")),
        ("Max-Forwards 0", format!("OPTIONS / HTTP/1.1\r\n{H}Max-Forwards: 0\r\n\r\n")),
        ("Max-Forwards 1", format!("OPTIONS * HTTP/1.1\r\n{H}Max-Forwards: 1\r\n\r\n")),
        ("OPTIONS *", format!("OPTIONS * HTTP/1.1\r\n{H}\r\n")),
        ("names of gateways", GATEWAY_FIELDS.replace("H\r\n", H)),
        (
            "aliases",
            format!(
                "GET / HTTP/1.1\r\n{H}X_Forwarded_For: 1\r\nexmesh_service: B\r\nEXMESH_GO: 1\r\nExmesh_refused: draining\r\n\r\n"
            ),
        ),
        ("many fields", format!("GET / HTTP/1.1\r\n{H}{}\r\n", "X-A: b\r\n".repeat(98))),
        ("too many fields", format!("GET / HTTP/1.1\r\n{H}{}\r\n", "X-A: b\r\n".repeat(101))),
        ("a long field", format!("GET / HTTP/1.1\r\n{H}X-A: {}\r\n\r\n", "b".repeat(60_000))),
        ("other methods", format!("PURGE /x HTTP/1.1\r\n{H}\r\n")),
        ("other host", "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n".into()),
        ("odd text", format!("GET /\u{e9}|\"<> HTTP/1.1\r\n{H}X-A: \u{e9}\r\n\r\n")),
    ];
    for (name, head) in &heads {
        for scene in [&plain, &trusting, &tracing] {
            scene.check(name, head, Vec::new());
        }
    }
}

const GATEWAY_FIELDS: &str = "GET / HTTP/1.1\r\nH\r\nExmesh-Service: B\r\nEXMESH-GO: 1\r\n\
    exmesh-refused: draining\r\nConnection: Exmesh-Service, exmesh-go\r\n\r\n";

#[test]
fn no_field_between_gateways_reaches_an_endpoint_or_a_client() {
    let scene = Scene::new(&Config::default());
    let script = reply(
        "HTTP/1.1 200 OK\r\nExmesh-Refused: draining\r\nExmesh_Go: 1\r\nExmesh-Service: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nExmesh-Go: 1\r\nX-Sum: 2\r\n\r\n",
    );
    let asks = [
        GATEWAY_FIELDS.replace("H\r\n", H),
        format!(
            "POST / HTTP/1.1\r\n{H}Exmesh-Go: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nExmesh-Service: B\r\nExmesh_Go: 1\r\nX-Sum: 1\r\n\r\n"
        ),
    ];
    for ask in asks {
        scene.check("fields", &ask, script.clone());
        let request = scene.far.requests().remove(0);
        let names = [request.fields.names(), request.trailers.names()].concat();
        assert!(!names.iter().any(|name| name.starts_with("exmesh")), "{names:?}");
    }
    assert_eq!(scene.far.requests()[0].trailers.one("x-sum").as_deref(), Some("1"));
    let mut client = scene.a.client();
    scene.far.script(script);
    let got = client.ask(format!("GET / HTTP/1.1\r\n{H}\r\n"));
    assert!(!got.fields.names().iter().any(|name| name.starts_with("exmesh-")), "{got:?}");
    assert_eq!(got.trailers.names(), ["x-sum"]);
}

#[test]
fn responses_are_the_same_for_the_client() {
    let scene = Scene::new(&Config::default());
    let get = format!("GET /x HTTP/1.1\r\n{H}\r\n");
    let bodies = [
        ("204", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n".to_string()),
        ("204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".into()),
        ("304", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n".into()),
        ("dated", "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n".into()),
        ("reason", "HTTP/1.1 299 Quite Odd\r\nContent-Length: 1\r\n\r\nx".into()),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx".into()),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx".into()),
        ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n".into()),
        ("lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok".into()),
        ("hop by hop", "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: x\r\nContent-Length: 0\r\n\r\n".into()),
        ("103", format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{}", ok("x"))),
        // As if it were a gateway.
        ("199", format!("HTTP/1.1 199 Go\r\nExmesh-Go: 1\r\n\r\n{}", ok("x"))),
        ("199 alone", format!("HTTP/1.1 199 Mine\r\n\r\n{}", ok("x"))),
        ("421", "HTTP/1.1 421 Misdirected Request\r\nExmesh-Refused: not-here\r\nContent-Length: 2\r\n\r\nno".into()),
        ("421 alone", "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 2\r\n\r\nno".into()),
        ("nonsense", "HTTQ\r\n\r\n".into()),
        ("ambiguous", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into()),
        ("not asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".into()),
        ("long head", format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(70_000))),
        ("33 interim", format!("{}{}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(33), ok("x"))),
    ];
    let post = format!("POST /x HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc");
    let old = format!("GET /x HTTP/1.0\r\n{H}\r\n");
    let json = format!("GET /x HTTP/1.1\r\n{H}Accept: application/json\r\n\r\n");
    let long =
        format!("POST /x HTTP/1.1\r\n{H}Content-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let head = format!("HEAD /x HTTP/1.1\r\n{H}\r\n");
    for (name, body) in &bodies {
        for ask in [&get, &post, &old, &json, &long] {
            scene.check(name, ask, reply(body));
        }
        if !body.ends_with('x')
            && *name != "chunked"
            && *name != "lengths"
            && !name.starts_with("421")
        {
            scene.check(name, &head, reply(body));
        }
    }
    for end in [Do::Close, Do::Reset] {
        scene.check("closes", &get, vec![Do::Body, end.clone()]);
        scene.check("closes", &post, vec![Do::Body, end]);
    }
    for ask in [&get, &post, &old, &head] {
        let body = if ask.starts_with("HEAD") { "" } else { "until the end" };
        let close = vec![Do::Body, send(format!("HTTP/1.1 200 OK\r\n\r\n{body}")), Do::Close];
        scene.check("until close", ask, close);
    }
}

/// The endpoint's 421 and 199 are not the peer's: the request runs once.
#[test]
fn an_endpoint_cannot_speak_for_its_gateway() {
    let [a, b, c] = nodes_with(&Config::default());
    let (far, other) = (Endpoint::start(), Endpoint::start());
    b.routes(std::slice::from_ref(&far.address));
    c.routes(std::slice::from_ref(&other.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    let refusal =
        "HTTP/1.1 421 Misdirected Request\r\nExmesh-Refused: not-here\r\nContent-Length: 0\r\n\r\n";
    let mut client = a.client();
    for n in [10, 100_000] {
        far.script(reply(refusal));
        let body = "x".repeat(n);
        let got = client.ask(format!("POST / HTTP/1.1\r\n{H}Content-Length: {n}\r\n\r\n{body}"));
        assert_eq!(got.status, 421);
        assert!(got.fields.one("exmesh-refused").is_none());
    }
    assert_eq!((far.requests().len(), other.requests().len()), (2, 0));
}

#[test]
fn continue_is_asked_for_and_given_by_the_endpoint() {
    let scene = Scene::new(&Config::default());
    for (node, endpoint) in [(&scene.one, &scene.near), (&scene.a, &scene.far)] {
        for n in [3, 200_000] {
            let go = send("HTTP/1.1 100 Continue\r\n\r\n");
            endpoint.script(vec![go, Do::Body, send(ok("thanks"))]);
            let mut client = node.client();
            client.send(format!(
                "POST / HTTP/1.1\r\n{H}Expect: 100-continue\r\nContent-Length: {n}\r\n\r\n"
            ));
            assert_eq!(client.response().status, 100);
            assert_eq!(client.ask("x".repeat(n)).body, b"thanks");
        }
        let expects = endpoint.requests().iter().all(|r| r.fields.one("expect").is_some());
        assert!(expects);
    }
    // A refusal without the body.
    let no = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
    let ask =
        format!("POST / HTTP/1.1\r\n{H}Expect: 100-continue\r\nContent-Length: 200000\r\n\r\n");
    scene.check("refused", ask, vec![send(no), Do::UntilClosed]);
}

#[test]
fn requests_of_http2_clients_are_the_same_for_the_endpoint() {
    let scene = Scene::new(&config());
    let ask = async |node: &Node, endpoint: &Endpoint| {
        let mut peer = Peer::connect(node.mesh.address()).await;
        let fields = [
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("exmesh-service", "B"),
            ("exmesh_go", "1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-request-id", "given-0123456789abcdef01"),
        ];
        let mut got = Vec::new();
        for (method, n) in
            [(http::Method::GET, 0), (http::Method::POST, 10), (http::Method::POST, 200_000)]
        {
            endpoint.script(reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"));
            let request = request(method, "a.test:77", "/two?x", &fields);
            let (response, mut up) = peer.begin(request, n == 0).await;
            if n > 0 {
                upload(&mut up, vec![b'x'; n].into(), true).await.expect("sent");
            }
            let answer = answer(response).await.expect("an answer");
            got.push(format!("{} {:?} {:?}", answer.status, answer.body, answer.trailers));
        }
        // How a body is cut into chunks is no difference.
        let seen = endpoint.requests().into_iter().map(|request| {
            assert!(request.whole);
            (String::from_utf8_lossy(&request.head).into_owned(), request.body)
        });
        (got, seen.collect::<Vec<_>>())
    };
    run(async {
        let with_one = ask(&scene.one, &scene.near).await;
        let with_two = ask(&scene.a, &scene.far).await;
        assert_eq!(with_two, with_one);
        let head = &with_two.1.first().unwrap_or_else(|| panic!("{:?}", with_two.0)).0;
        assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("exmesh"), "{head}");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let scene = Scene::new(&Config::default());
    let mut client = scene.a.client();
    let ask = |n: usize| {
        let body = "y".repeat(n * 997);
        let length = body.len();
        format!(
            "POST /{n} HTTP/1.1\r\n{H}Content-Length: {length}\r\n\r\n{body}GET /get{n} HTTP/1.1\r\n{H}\r\n"
        )
    };
    client.send((0..50).map(ask).collect::<String>());
    for n in 0..50 {
        assert_eq!(client.response().body, format!("/{n}").as_bytes());
        assert_eq!(client.response().body, format!("/get{n}").as_bytes());
    }
    let requests = scene.far.requests();
    assert!(
        requests
            .iter()
            .filter(|r| r.method == "POST")
            .enumerate()
            .all(|(n, r)| r.body.len() == n * 997)
    );
    assert_eq!(scene.a.stats().upstream_connections_opened, 1);
}
