//! The gateway's own responses: short, in the form the client asked for, saying which and why.

use std::borrow::Cow;

use serde::Serialize;

use mesh_wire::ids::RequestId;
use mesh_wire::prefer::Prefer;

use crate::error::Answer;
use crate::observe::wall_clock;

#[derive(Serialize)]
struct JsonError<'a> {
    status: u16,
    error: &'a str,
    reason: &'a str,
}

/// How the connection goes on after the reply.
#[derive(Clone, Copy)]
pub struct Framing {
    pub keep_alive: bool,
    /// The request was HEAD: no body.
    pub head_only: bool,
    /// HTTP/1.`minor` of the request.
    pub minor: u8,
}

/// Writes the whole reply; how long its body is.
pub fn write(
    answer: &Answer,
    prefer: Prefer,
    framing: Framing,
    request_id: &RequestId,
    out: &mut Vec<u8>,
) -> u64 {
    let (kind, body) = render(answer, prefer);
    let connection = match (framing.keep_alive, framing.minor) {
        (false, _) => "Connection: close\r\n",
        (true, 0) => "Connection: keep-alive\r\n",
        (true, _) => "",
    };
    let retry_after = match answer.retry_after {
        Some(seconds) => format!("Retry-After: {seconds}\r\n"),
        None => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nDate: {}\r\n{retry_after}{connection}",
        answer.status,
        answer.reason,
        body.len(),
        wall_clock::http_date(),
    );
    out.extend_from_slice(head.as_bytes());
    if *request_id != RequestId::None {
        out.extend_from_slice(b"X-Request-Id: ");
        request_id.write(out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if framing.head_only {
        return 0;
    }
    out.extend_from_slice(body.as_bytes());
    body.len() as u64
}

/// The body, and what it is.
pub fn render(answer: &Answer, prefer: Prefer) -> (&'static str, String) {
    match prefer {
        Prefer::Text => ("text/plain; charset=utf-8", format!("{}\n", answer.why)),
        Prefer::Json => {
            let error =
                JsonError { status: answer.status, error: answer.reason, reason: &answer.why };
            let text = serde_json::to_string(&error).unwrap_or_default();
            ("application/json", format!("{text}\n"))
        }
        Prefer::Html => {
            let (status, title, why) = (answer.status, answer.reason, escape(&answer.why));
            let page = format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
                 <meta name=\"viewport\" content=\"width=device-width\">\
                 <meta name=\"color-scheme\" content=\"light dark\">\
                 <title>{status} {title}</title></head>\
                 <body style=\"font:1rem/1.5 system-ui,sans-serif;margin:4rem auto;max-width:36rem;padding:0 1rem\">\
                 <h1>{status} {title}</h1><p>{why}</p></body></html>\n"
            );
            ("text/html; charset=utf-8", page)
        }
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;");
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_host_stays_text_in_html_and_json() {
        let answer = Answer {
            status: 404,
            reason: "Not Found",
            why: "unknown service: <b>\"&'".into(),
            retry_after: None,
        };
        let framing = Framing { keep_alive: true, head_only: false, minor: 1 };
        let mut html = Vec::new();
        write(&answer, Prefer::Html, framing, &RequestId::None, &mut html);
        assert!(String::from_utf8(html).unwrap().contains("&lt;b&gt;&quot;&amp;&#39;</p>"));
        let mut json = Vec::new();
        write(&answer, Prefer::Json, framing, &RequestId::None, &mut json);
        assert!(String::from_utf8(json).unwrap().contains(r#"unknown service: <b>\"&'"#));
    }
}
