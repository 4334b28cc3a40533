//! HTTP conformance over raw sockets: what the client sent, what the endpoint saw byte for byte, and
//! what the client got. The cases are tables, one file per topic; `examples/conformance.rs` runs the
//! same tables against any other proxy.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod cases;
mod check;
mod end_to_end;
mod prelude;
mod run;
mod trusted_proxies;

macro_rules! topics {
    ($($topic:ident),* $(,)?) => {
        $(
            #[test]
            fn $topic() {
                run::run(cases::$topic::cases());
            }
        )*

        /// Requests that an application in the gateway's VM answers.
        mod called {
            $(
                #[test]
                fn $topic() {
                    crate::run::run_called(crate::cases::$topic::cases());
                }
            )*
        }

        /// Requests to a server that speaks HTTP/2.
        mod http2 {
            $(
                #[test]
                fn $topic() {
                    crate::run::run_http2(crate::cases::$topic::cases());
                }
            )*
        }
    };
}

topics!(
    request_line,
    host,
    framing,
    smuggling,
    hop_by_hop,
    forwarded,
    upgrade,
    responses,
    interim,
    persistence,
    streaming
);

#[test]
fn case_names_are_unique() {
    let mut names = std::collections::HashSet::new();
    for (topic, cases) in cases::all() {
        for case in cases {
            assert!(names.insert((topic, case.name.clone())), "twice in {topic}: {}", case.name);
        }
    }
}
