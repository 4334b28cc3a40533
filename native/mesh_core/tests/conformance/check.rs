//! The words in which a case says what must come out.

use super::case::{Check, Transcript, Verdict};
use crate::support::wire::{Fields, Request, Response};

/// Something to look at in a request or a response.
#[derive(Clone, Debug)]
pub enum Look {
    /// The start line.
    Line(&'static str),
    /// Exactly one line of this name, with this value.
    One(&'static str, &'static str),
    /// All lines of this name, in order.
    Lines(&'static str, &'static [&'static str]),
    /// At least one line of this name.
    Has(&'static str),
    /// Some line of this name has this in its value, in any case.
    In(&'static str, &'static str),
    /// No line of this name has this in its value.
    NotIn(&'static str, &'static str),
    /// No line of this name.
    Lacks(&'static str),
    Body(&'static [u8]),
    Trailer(&'static str, &'static str),
    NoTrailer(&'static str),
    /// These bytes, somewhere in the head.
    Raw(&'static [u8]),
}

pub use Look::*;

fn look(
    look: &Look,
    line: &str,
    head: &[u8],
    fields: &Fields,
    body: &[u8],
    trailers: &Fields,
) -> Verdict {
    let wrong = |seen: String| Err(format!("wanted {look:?}, saw {seen}"));
    match look {
        Line(want) if line != *want => wrong(format!("{line:?}")),
        One(name, want) if fields.one(name).as_deref() != Some(want) => {
            wrong(format!("{:?}", fields.all(name)))
        }
        Lines(name, want) if fields.all(name) != *want => wrong(format!("{:?}", fields.all(name))),
        In(name, part)
            if !fields.all(name).iter().any(|v| v.to_ascii_lowercase().contains(part)) =>
        {
            wrong(format!("{:?}", fields.all(name)))
        }
        NotIn(name, part)
            if fields.all(name).iter().any(|v| v.to_ascii_lowercase().contains(part)) =>
        {
            wrong(format!("{:?}", fields.all(name)))
        }
        Has(name) if fields.all(name).is_empty() => wrong("none".into()),
        Lacks(name) if !fields.all(name).is_empty() => wrong(format!("{:?}", fields.all(name))),
        Body(want) if body != *want => wrong(format!("{:?}", body.escape_ascii().to_string())),
        Trailer(name, want) if trailers.one(name).as_deref() != Some(want) => {
            wrong(format!("{:?}", trailers.all(name)))
        }
        NoTrailer(name) if !trailers.all(name).is_empty() => {
            wrong(format!("{:?}", trailers.all(name)))
        }
        Raw(want) if !head.windows(want.len()).any(|w| w == *want) => {
            wrong(head.escape_ascii().to_string())
        }
        _ => Ok(()),
    }
}

pub fn on_request(r: &Request, looks: &[Look]) -> Verdict {
    let all = |l: &Look| look(l, &r.line, &r.head, &r.fields, &r.body, &r.trailers);
    looks.iter().try_for_each(|l| all(l).map_err(|why| format!("endpoint: {why}")))
}

pub fn on_response(r: &Response, looks: &[Look]) -> Verdict {
    let all = |l: &Look| look(l, &r.line, &r.head, &r.fields, &r.body, &r.trailers);
    looks.iter().try_for_each(|l| all(l).map_err(|why| format!("client: {why}")))
}

fn is_refusal(t: &Transcript, statuses: &[u16]) -> Verdict {
    if !t.own && t.finals().is_empty() && t.closed {
        // Hanging up without a word keeps the endpoint just as safe.
        return Ok(());
    }
    let status = t.answer()?.status;
    let fits = if t.own { statuses.contains(&status) } else { (400..600).contains(&status) };
    if fits {
        Ok(())
    } else {
        Err(format!("status {status}, wanted {statuses:?}; {}", t.describe()))
    }
}

/// One of these statuses, the connection closed, and the endpoint never hears of it.
pub fn refused(statuses: &'static [u16]) -> Check {
    Box::new(move |t| {
        is_refusal(t, statuses)?;
        if !t.seen.is_empty() {
            return Err(format!("the endpoint got something; {}", t.describe()));
        }
        if t.own && !(t.closed && t.rest.is_empty()) {
            return Err(format!("the connection stayed open; {}", t.describe()));
        }
        Ok(())
    })
}

/// As `refused`, and the status itself is what the RFC demands, of everyone.
pub fn refused_with(status: u16) -> Check {
    Box::new(move |t| {
        let got = t.answer()?.status;
        if got != status || !t.seen.is_empty() {
            return Err(format!("status {got}, wanted {status}; {}", t.describe()));
        }
        Ok(())
    })
}

/// Answered by the proxy itself in this way; the connection may go on.
pub fn answered(statuses: &'static [u16], looks: Vec<Look>) -> Check {
    Box::new(move |t| {
        is_refusal(t, statuses)?;
        if !t.seen.is_empty() {
            return Err(format!("the endpoint got something; {}", t.describe()));
        }
        if t.own { on_response(t.answer()?, &looks) } else { Ok(()) }
    })
}

/// Exactly one request reaches the endpoint, looks like this, and its 200 comes back.
pub fn passed(looks: Vec<Look>) -> Check {
    passed_and(looks, Vec::new())
}

/// The same, and the response looks like that.
pub fn passed_and(looks: Vec<Look>, response: Vec<Look>) -> Check {
    Box::new(move |t| {
        on_request(t.request()?, &looks)?;
        let answer = t.answer()?;
        if answer.status != 200 || !answer.whole || !t.rest.is_empty() {
            return Err(t.describe());
        }
        on_response(answer, &response)
    })
}

/// The client gets this final status, whole, and it looks like this.
pub fn gets(status: u16, looks: Vec<Look>) -> Check {
    Box::new(move |t| {
        let answer = t.answer()?;
        if answer.status != status || !answer.whole || !t.rest.is_empty() {
            return Err(format!("wanted {status}; {}", t.describe()));
        }
        on_response(answer, &looks)
    })
}

/// The endpoint was wrong, and the client must not take what it said for a good response: an
/// error from the proxy, or a connection that breaks off.
pub fn not_believed() -> Check {
    Box::new(|t| match t.finals()[..] {
        // Our own says so; breaking off is as good a way for others to say it.
        [] if t.closed && !t.own => Ok(()),
        [one] if one.status >= 500 => {
            // An application that is called says such a thing by failing.
            let wanted = if t.called { 500..=502 } else { 502..=502 };
            if t.own && !wanted.contains(&one.status) {
                return Err(format!("wanted {wanted:?}; {}", t.describe()));
            }
            Ok(())
        }
        _ => Err(format!("it was believed; {}", t.describe())),
    })
}

/// What came of the response so far breaks off visibly.
pub fn torn() -> Check {
    Box::new(|t| {
        let finals = t.finals();
        if finals.iter().all(|r| r.status >= 500) && (t.closed || !finals.is_empty()) {
            return Ok(());
        }
        Err(format!("it looks whole; {}", t.describe()))
    })
}

/// These final statuses in this order, with these bodies, and nothing else.
pub fn in_step(want: &'static [(u16, &'static str)]) -> Check {
    Box::new(move |t| {
        let finals = t.finals();
        let got: Vec<(u16, String)> = finals
            .iter()
            .map(|r| (r.status, String::from_utf8_lossy(&r.body).into_owned()))
            .collect();
        let same = got.len() == want.len()
            && got.iter().zip(want).all(|(g, w)| g.0 == w.0 && (w.1.is_empty() || g.1 == w.1));
        if same && t.rest.is_empty() && t.malformed.is_none() {
            return Ok(());
        }
        Err(format!("wanted {want:?}, got {got:?}; {}", t.describe()))
    })
}

/// The endpoint saw these targets, in this order.
pub fn targets(want: &'static [&'static str]) -> Check {
    Box::new(move |t| {
        let got: Vec<_> = t.requests.iter().map(|r| r.target.as_str()).collect();
        if got == want && t.malformed.is_none() {
            return Ok(());
        }
        Err(format!("wanted {want:?}; {}", t.describe()))
    })
}

/// The client's connection was closed by the server.
pub fn closes() -> Check {
    Box::new(|t| if t.closed { Ok(()) } else { Err(format!("stayed open; {}", t.describe())) })
}

/// The client's connection was still open after the response.
pub fn stays_open() -> Check {
    Box::new(|t| if t.closed { Err(format!("it closed; {}", t.describe())) } else { Ok(()) })
}

/// The interim responses, by status.
pub fn interims(want: &'static [u16]) -> Check {
    Box::new(move |t| {
        let got: Vec<_> = t.responses.iter().map(|r| r.status).filter(|s| *s < 200).collect();
        if got == want { Ok(()) } else { Err(format!("interims {got:?}, wanted {want:?}")) }
    })
}

pub fn all_of(checks: Vec<Check>) -> Check {
    Box::new(move |t| checks.iter().try_for_each(|check| check(t)))
}

pub fn one_of(checks: Vec<Check>) -> Check {
    Box::new(move |t| {
        let mut why = Vec::new();
        for check in &checks {
            match check(t) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(reason),
            }
        }
        Err(why.join(" / "))
    })
}

/// This for our own gateway, that for others.
pub fn if_own(own: Check, other: Check) -> Check {
    Box::new(move |t| if t.own { own(t) } else { other(t) })
}

pub fn anything() -> Check {
    Box::new(|_| Ok(()))
}

/// A byte that must not stand in a field value: the request is refused, or what the endpoint gets
/// has no such byte (RFC 9110 section 5.5: replaced; a recipient may also drop the line).
pub fn refused_or_without(byte: u8) -> Check {
    let refuse = refused(&[400]);
    Box::new(move |t| {
        let bytes = t.seen.concat();
        let raw = bytes.iter().enumerate().any(|(i, b)| match *b {
            b'\r' if byte == b'\r' => bytes.get(i + 1) != Some(&b'\n'),
            b => b == byte && byte != b'\r',
        });
        if t.own || raw || t.requests.is_empty() { refuse(t) } else { Ok(()) }
    })
}

pub fn that(check: impl Fn(&Transcript) -> Verdict + 'static) -> Check {
    Box::new(check)
}
