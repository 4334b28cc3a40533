//! What the endpoint is told about the client: exactly one line of each field, and nothing that a
//! stranger said. RFC 7239; the X-Forwarded fields have no RFC. The trusted side of it is in
//! `trusted_proxies.rs` beside the tables, since it needs another configuration.

use crate::prelude::*;

pub fn cases() -> Vec<Case> {
    let clean = |name: &str, fields: &str, looks| {
        case(name, "RFC 7239 8.1", Must, get(fields), passed(looks)).ours()
    };
    let ours = || {
        vec![
            One("x-forwarded-for", "127.0.0.1"),
            One("x-forwarded-proto", "http"),
            One("x-forwarded-host", "a.test"),
            One("x-forwarded-port", "80"),
            Lacks("forwarded"),
        ]
    };
    vec![
        clean("without any", "", ours()),
        clean("X-Forwarded-For of a stranger", "X-Forwarded-For: 1.2.3.4\r\n", ours()),
        clean("several of them", "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8\r\n", ours()),
        clean("a list", "X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n", ours()),
        clean("in capitals", "X-FORWARDED-FOR: 1.2.3.4\r\n", ours()),
        clean("an empty one", "X-Forwarded-For:\r\n", ours()),
        clean("X-Forwarded-Proto", "X-Forwarded-Proto: https\r\n", ours()),
        clean("X-Forwarded-Host", "X-Forwarded-Host: evil.test\r\n", ours()),
        clean("X-Forwarded-Port", "X-Forwarded-Port: 443\r\n", ours()),
        clean("Forwarded", "Forwarded: for=1.2.3.4;proto=https;host=evil\r\n", ours()),
        clean("all at once, twice",
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=x\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             Forwarded: for=x\r\n", ours()),
        clean("named in Connection", "Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.2.3.4\r\n",
            ours()),
        clean("with underscores, which other servers take for the same",
            "X_Forwarded_For: 1.2.3.4\r\nx_forwarded-proto: https\r\nX_FORWARDED_HOST: evil\r\n\
             X-Forwarded_Port: 1\r\nX_Request_Id: 01234567890123456789\r\nX_Mine: 1\r\n",
            [ours(), vec![Lacks("x_forwarded_for"), Lacks("x_forwarded-proto"),
                Lacks("x_forwarded_host"), Lacks("x-forwarded_port"), Lacks("x_request_id"),
                One("x_mine", "1")]].concat()),
        case("the port that Host names", "RFC 7239 5.3", Must,
            "GET / HTTP/1.1\r\nHost: a.test:4000\r\n\r\n",
            passed(vec![One("x-forwarded-host", "a.test:4000"), One("x-forwarded-port", "4000")]))
            .ours(),
        case("the host of the absolute form", "RFC 7239 5.3", Must,
            "GET http://a.test:81/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            passed(vec![One("x-forwarded-host", "a.test:81"), One("x-forwarded-port", "81")]))
            .ours(),
        case("in HTTP/1.0 too", "RFC 7239 8.1", Must,
            "GET / HTTP/1.0\r\nHost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            passed(vec![One("x-forwarded-for", "127.0.0.1")])).ours(),
        case("on every request of a connection", "RFC 7239 8.1", Must,
            get("") + &get("X-Forwarded-For: 1.2.3.4\r\n"),
            that(|t| {
                let all: Vec<_> =
                    t.requests.iter().map(|r| r.fields.one("x-forwarded-for")).collect();
                let right = all.len() == 2 && all.iter().all(|f| f.as_deref() == Some("127.0.0.1"));
                if right { Ok(()) } else { Err(format!("{all:?}")) }
            })).answers(2).ours(),
        case("fields that only look alike stay", "RFC 9110 5.1", Should,
            get("X-Forwarded-Fo: 1\r\nX-Forwarded-Forx: 2\r\n"),
            passed(vec![One("x-forwarded-fo", "1"), One("x-forwarded-forx", "2")])).ours(),
    ]
}
