//! What a case is, how it is run, and the words in which it says what must come out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::application::Application;
use crate::support::client::{Client, End};
use crate::support::endpoint::{Endpoint, Script};
use crate::support::eventually;
use crate::support::h2_front::Front;
use crate::support::wire::{Request, Response};

/// How binding the rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
    /// The RFC lets a recipient be lenient here; practice has shown that to be harmful.
    Strict,
}

/// What the client does, in order.
pub enum Act {
    Send(Vec<u8>),
    /// Wait until this many final responses have come in all.
    Answers(usize),
    /// Wait until the endpoint has seen these bytes.
    Seen(Vec<u8>),
    /// Wait until the client has got these bytes, be they part of a response or not.
    Got(Vec<u8>),
    /// Let the endpoint pass its gate.
    Open(&'static str),
    Fin,
}

pub type Verdict = Result<(), String>;
pub type Check = Box<dyn Fn(&Transcript) -> Verdict>;

pub struct Case {
    pub name: String,
    pub section: &'static str,
    pub level: Level,
    /// A rule of this gateway's own; says nothing about others.
    pub ours: bool,
    /// About words that an endpoint has and an application that is called has not.
    pub of_endpoints: bool,
    /// About the syntax of HTTP/1.1 between the gateway and the endpoint, which HTTP/2 has not.
    pub of_http1: bool,
    acts: Vec<Act>,
    scripts: Vec<Script>,
    to_head: bool,
    check: Check,
}

pub fn case(
    name: impl Into<String>,
    section: &'static str,
    level: Level,
    send: impl AsRef<[u8]>,
    check: Check,
) -> Case {
    let send = send.as_ref().to_vec();
    Case {
        name: name.into(),
        section,
        level,
        ours: false,
        of_endpoints: false,
        of_http1: false,
        to_head: send.starts_with(b"HEAD "),
        acts: vec![Act::Send(send)],
        scripts: Vec::new(),
        check,
    }
}

impl Case {
    pub fn ours(mut self) -> Case {
        self.ours = true;
        self
    }

    /// A call writes the framing and the reason by itself, has no trailers, and knows no wrong heads.
    pub fn of_endpoints(mut self) -> Case {
        self.of_endpoints = true;
        self
    }

    /// HTTP/2 has no chunks, no reason, no version of a message, no Connection, and names without capitals
    /// whose order is that of their first lines.
    pub fn of_http1(mut self) -> Case {
        self.of_http1 = true;
        self
    }

    pub fn then(mut self, act: Act) -> Case {
        self.acts.push(act);
        self
    }

    /// What the client sends first.
    pub fn sent(&self) -> &[u8] {
        match self.acts.first() {
            Some(Act::Send(bytes)) => bytes,
            _ => b"",
        }
    }

    /// HTTP/1.0 that does not ask for more: the server closes and need not say so.
    fn closes_silently(&self) -> bool {
        let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
        let bytes = self.sent();
        has(bytes, b" HTTP/1.0\r\n") && (!has(bytes, b"keep-alive") || has(bytes, b"close"))
    }

    /// Waits for this many final responses.
    pub fn answers(self, n: usize) -> Case {
        self.then(Act::Answers(n))
    }

    /// How the endpoint answers the next request.
    pub fn script(mut self, script: Script) -> Case {
        self.scripts.push(script);
        self
    }
}

/// All that happened.
pub struct Transcript {
    /// Final responses and interim ones, in order.
    pub responses: Vec<Response>,
    /// A response that began and did not end.
    pub torn: Option<Response>,
    /// What followed the responses and is none.
    pub rest: Vec<u8>,
    /// The server closed before the client did.
    pub closed: bool,
    pub end: End,
    pub requests: Vec<Request>,
    /// Everything the endpoint received, one entry for each of its connections that got something.
    pub seen: Vec<Vec<u8>>,
    /// Why the endpoint could not make sense of something.
    pub malformed: Option<String>,
    /// Our own gateway, which must give exactly the status it documents.
    pub own: bool,
    /// The gateway calls an application in its VM.
    pub called: bool,
}

impl Transcript {
    pub fn finals(&self) -> Vec<&Response> {
        self.responses.iter().filter(|r| r.status >= 200).collect()
    }

    /// The one final response.
    pub fn answer(&self) -> Result<&Response, String> {
        match self.finals()[..] {
            [one] => Ok(one),
            ref many => Err(format!("{} responses: {}", many.len(), self.describe())),
        }
    }

    /// The one request.
    pub fn request(&self) -> Result<&Request, String> {
        if let Some(why) = &self.malformed {
            return Err(format!("the endpoint got no valid request: {why}; {}", self.describe()));
        }
        match &self.requests[..] {
            [one] => Ok(one),
            many => Err(format!("the endpoint saw {} requests; {}", many.len(), self.describe())),
        }
    }

    pub fn describe(&self) -> String {
        let responses: Vec<_> = self.responses.iter().map(|r| r.line.as_str()).collect();
        let seen: Vec<_> = self.seen.iter().map(|s| s.escape_ascii().to_string()).collect();
        format!(
            "client got {responses:?} torn {:?} rest {:?} {:?}; endpoint saw {seen:?}",
            self.torn.as_ref().map(|r| &r.line),
            self.rest.escape_ascii().to_string(),
            self.end,
        )
    }
}

/// A proxy and the endpoint behind it.
pub struct Bench<'a> {
    proxy: SocketAddr,
    endpoint: &'a Endpoint,
    /// Our own gateway calls it, and it asks the endpoint.
    pub called: Option<&'a Application>,
    /// Our own gateway speaks HTTP/2 to it, and it asks the endpoint.
    pub front: Option<&'a Front>,
    own: bool,
    patience: Duration,
}

impl<'a> Bench<'a> {
    pub fn new(proxy: SocketAddr, endpoint: &'a Endpoint, own: bool) -> Bench<'a> {
        let patience = if own { crate::support::PATIENCE } else { Duration::from_secs(3) };
        Bench { proxy, endpoint, called: None, front: None, own, patience }
    }

    pub fn run(&self, case: Case) -> Verdict {
        self.endpoint.forget();
        for script in &case.scripts {
            self.endpoint.script(script.clone());
        }
        let transcript = self.play(&case)?;
        (case.check)(&transcript)
    }

    fn play(&self, case: &Case) -> Result<Transcript, String> {
        let mut client = Client::connect(self.proxy).patience(self.patience);
        let mut heard = Heard { responses: Vec::new(), torn: None, end: None, again: Ok(()) };
        for act in &case.acts {
            match act {
                // A server that has seen enough may close before it has all.
                Act::Send(bytes) => drop(client.try_send(bytes)),
                Act::Answers(n) => heard.listen(&mut client, *n, case.to_head),
                Act::Seen(bytes) => self.endpoint.wait_for_bytes(bytes),
                Act::Got(bytes) => {
                    let got = client.read_until(bytes);
                    got.map_err(|end| format!("{:?} never came: {end:?}", bytes.escape_ascii()))?;
                }
                Act::Open(gate) => self.endpoint.open_gate(gate),
                Act::Fin => client.fin(),
            }
        }
        if !case.acts.iter().any(|act| matches!(act, Act::Answers(_))) {
            heard.listen(&mut client, 1, case.to_head);
        }
        // Whatever else the server has to say, it says before it closes; one that closes by itself
        // is seen to have done so because our side is still open.
        let mut closed = heard.end.is_some();
        if heard.end.is_none() && (heard.announced_close() || case.closes_silently()) {
            let end = client.read_to_end();
            closed = end != End::Silent;
            heard.end = closed.then_some(end);
        }
        if heard.end.is_none() {
            client.fin();
            heard.end = Some(client.read_to_end());
        }
        let rest = std::mem::take(&mut client.buffer);
        drop(client);
        self.flush();
        if self.own {
            heard.again?;
            self.endpoint.read_again()?;
        }
        Ok(self.endpoint.look(|state| Transcript {
            responses: heard.responses,
            torn: heard.torn,
            rest,
            closed,
            end: heard.end.unwrap_or(End::Silent),
            requests: state.requests.iter().filter(|r| !is_sentinel(&r.head)).cloned().collect(),
            seen: without_sentinels(state.connections.iter().map(|c| c.raw.as_slice())),
            malformed: state.connections.iter().find_map(|c| c.malformed.clone()),
            own: self.own,
            called: self.called.is_some(),
        }))
    }

    /// What the proxy was about to send to the endpoint has been sent once a request behind it has
    /// been answered.
    fn flush(&self) {
        let mut client = Client::connect(self.proxy).patience(self.patience);
        let asked =
            client.try_send(b"GET /sentinel HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        if asked.is_ok() {
            let _ = client.try_response(false);
        }
        if let Some(application) = self.called {
            eventually("the application is idle", || application.is_idle());
        }
        if let Some(front) = self.front {
            eventually("the server of HTTP/2 is idle", || front.is_idle());
        }
        self.endpoint.settle();
    }
}

fn is_sentinel(head: &[u8]) -> bool {
    head.starts_with(b"GET /sentinel")
}

fn without_sentinels<'s>(raws: impl Iterator<Item = &'s [u8]>) -> Vec<Vec<u8>> {
    let kept = raws.map(|raw| {
        let cut = raw.windows(13).position(is_sentinel).unwrap_or(raw.len());
        raw[..cut].to_vec()
    });
    kept.filter(|raw| !raw.is_empty()).collect()
}

/// What the client has received so far.
struct Heard {
    responses: Vec<Response>,
    torn: Option<Response>,
    end: Option<End>,
    /// Where hyper reads a response otherwise.
    again: Verdict,
}

impl Heard {
    fn listen(&mut self, client: &mut Client, finals: usize, to_head: bool) {
        let count = |all: &[Response]| all.iter().filter(|r| r.status >= 200).count();
        // What follows a 101 is no HTTP.
        let open = |all: &[Response]| all.last().is_none_or(|last| last.status != 101);
        while self.end.is_none() && open(&self.responses) && count(&self.responses) < finals {
            match client.try_response(to_head) {
                Ok(response) => self.responses.push(response),
                Err((end, torn)) => {
                    self.torn = torn.map(|response| *response);
                    self.end = Some(end);
                }
            }
            if self.again.is_ok() {
                self.again = client.read_again();
            }
        }
    }

    fn announced_close(&self) -> bool {
        let Some(last) = self.responses.last() else { return false };
        let said = last.fields.all("connection").iter().any(|v| v.contains("close"));
        // A body without a length ends with the connection.
        let has = |name| !last.fields.all(name).is_empty();
        let open_ended =
            !last.body.is_empty() && !has("content-length") && !has("transfer-encoding");
        said || open_ended
    }
}
