//! Writes the gateway's own responses, in the format that the client prefers.

use std::borrow::Cow;

use serde::Serialize;

use mesh_wire::error_format::ErrorFormat;
use mesh_wire::ids::RequestId;

use crate::error::Answer;
use crate::observe::wall_clock;

#[derive(Serialize)]
struct JsonError<'a> {
    status: u16,
    error: &'a str,
    reason: &'a str,
}

/// How to frame the reply.
#[derive(Clone, Copy)]
pub struct Framing {
    pub keep_alive: bool,
    /// The request was HEAD: no body.
    pub head_only: bool,
    /// HTTP/1.`minor` of the request.
    pub minor: u8,
}

/// Writes the reply. Returns the size of its body.
pub fn write(
    answer: &Answer,
    error_format: ErrorFormat,
    framing: Framing,
    request_id: &RequestId,
    out: &mut Vec<u8>,
) -> u64 {
    let (kind, body) = render(answer, error_format);
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

/// Returns the content type and the body.
pub fn render(answer: &Answer, error_format: ErrorFormat) -> (&'static str, String) {
    match error_format {
        ErrorFormat::Text => ("text/plain; charset=utf-8", format!("{}\n", answer.message)),
        ErrorFormat::Json => {
            let error =
                JsonError { status: answer.status, error: answer.reason, reason: &answer.message };
            let text = serde_json::to_string(&error).unwrap_or_default();
            ("application/json", format!("{text}\n"))
        }
        ErrorFormat::Html => {
            let (status, title, why) = (answer.status, answer.reason, escape(&answer.message));
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
    fn a_hostile_host_is_escaped_in_html_and_json() {
        let answer = Answer {
            status: 404,
            reason: "Not Found",
            message: "unknown service: <b>\"&'".into(),
            retry_after: None,
        };
        let framing = Framing { keep_alive: true, head_only: false, minor: 1 };
        let mut html = Vec::new();
        write(&answer, ErrorFormat::Html, framing, &RequestId::None, &mut html);
        assert!(String::from_utf8(html).unwrap().contains("&lt;b&gt;&quot;&amp;&#39;</p>"));
        let mut json = Vec::new();
        write(&answer, ErrorFormat::Json, framing, &RequestId::None, &mut json);
        assert!(String::from_utf8(json).unwrap().contains(r#"unknown service: <b>\"&'"#));
    }
}
