//! A second, deliberately plain reading of HTTP/1.1 (RFC 9112), independent of the gateway's: it
//! tells endpoints and clients of the tests what they have received.

/// One header or trailer section, in order, names and values as they came (values trimmed).
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl Fields {
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, v)| v.iter().map(|b| char::from(*b)).collect()).collect()
    }

    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        if all.len() == 1 { all.pop() } else { None }
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(n, _)| n.to_ascii_lowercase()).collect()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub line: String,
    pub method: String,
    pub target: String,
    pub fields: Fields,
    /// Head as it came, empty line included.
    pub head: Vec<u8>,
    /// Decoded.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The body has been read to its end.
    pub whole: bool,
    /// A whole body as it came.
    pub raw_body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Response {
    pub line: String,
    pub status: u16,
    pub fields: Fields,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub whole: bool,
}

impl Response {
    /// Not an interim one.
    pub fn is_final(&self) -> bool {
        self.status >= 200 || self.status == 101
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

/// Length of the head at the front of `bytes`, empty line included.
pub fn head_size(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn parse_head(head: &[u8]) -> Result<(String, Fields), String> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or("no empty line")?;
    if text.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || text[i - 1] != b'\r')) {
        return Err("a bare line feed".into());
    }
    let lines = split_lines(text);
    let line = String::from_utf8_lossy(lines[0]).into_owned();
    Ok((line, parse_fields(&lines[1..])?))
}

fn parse_fields(lines: &[&[u8]]) -> Result<Fields, String> {
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|b| *b == b':');
        let colon = colon.ok_or_else(|| format!("no colon in {:?}", line.escape_ascii()))?;
        let name = std::str::from_utf8(&line[..colon]).map_err(|e| e.to_string())?;
        if name.is_empty() || name.contains([' ', '\t', '\r', '\0']) {
            return Err(format!("bad field name {name:?}"));
        }
        if line.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            return Err(format!("bad field value in {:?}", line.escape_ascii()));
        }
        fields.push((name.to_string(), line[colon + 1..].trim_ascii().to_vec()));
    }
    Ok(Fields(fields))
}

/// RFC 9112 section 6.3 without any mercy: whatever is ambiguous is an error.
fn length(fields: &Fields, otherwise: Length) -> Result<Length, String> {
    let lengths = fields.all("content-length");
    let codings = fields.all("transfer-encoding");
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(otherwise),
        ([one], []) if !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit()) => {
            one.parse().map(Length::Known).map_err(|e| e.to_string())
        }
        ([], [one]) if one.eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
        _ => Err(format!("ambiguous framing: lengths {lengths:?}, codings {codings:?}")),
    }
}

pub fn request(head: &[u8]) -> Result<(Request, Length), String> {
    let (line, fields) = parse_head(head)?;
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else { return Err(format!("bad line {line:?}")) };
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("bad version in {line:?}"));
    }
    let length = length(&fields, Length::Known(0))?;
    let (method, target) = (method.to_string(), target.to_string());
    Ok((
        Request { line, method, target, fields, head: head.to_vec(), ..Request::default() },
        length,
    ))
}

/// The head of a response, whatever its fields say of the body.
pub fn response_head(head: &[u8]) -> Result<Response, String> {
    let (line, fields) = parse_head(head)?;
    let mut parts = line.splitn(3, ' ');
    let version = parts.next().unwrap_or("");
    let status: u16 = parts.next().and_then(|s| s.parse().ok()).ok_or("no status")?;
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("bad version in {line:?}"));
    }
    Ok(Response { line, status, fields, head: head.to_vec(), ..Response::default() })
}

/// `to_head`: the response is one to HEAD.
pub fn response(head: &[u8], to_head: bool) -> Result<(Response, Length), String> {
    let response = response_head(head)?;
    let status = response.status;
    let length = if to_head || status < 200 || status == 204 || status == 304 {
        Length::Known(0)
    } else {
        length(&response.fields, Length::UntilClose)?
    };
    Ok((response, length))
}

/// What a body has come to so far.
#[derive(Debug, Default)]
pub struct Progress {
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Bytes of the input that belong to it.
    pub used: usize,
    pub done: bool,
}

pub fn body(bytes: &[u8], length: Length) -> Result<Progress, String> {
    match length {
        Length::Known(n) => {
            let used = n.min(bytes.len());
            let body = bytes[..used].to_vec();
            Ok(Progress { body, used, done: used == n, ..Progress::default() })
        }
        Length::UntilClose => {
            let (body, used) = (bytes.to_vec(), bytes.len());
            Ok(Progress { body, used, ..Progress::default() })
        }
        Length::Chunked => chunked(bytes),
    }
}

fn chunked(bytes: &[u8]) -> Result<Progress, String> {
    let mut progress = Progress::default();
    let mut rest = bytes;
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok(progress) };
        let line = &rest[..end];
        if line.is_empty() || line.len() > 16 || !line.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("bad chunk line {:?}", line.escape_ascii()));
        }
        let size = std::str::from_utf8(line).ok().and_then(|l| usize::from_str_radix(l, 16).ok());
        let size = size.ok_or("chunk size")?;
        let after = &rest[end + 2..];
        if size == 0 {
            return last_chunk(bytes, after, progress);
        }
        let here = size.min(after.len());
        if after.len() < size + 2 {
            progress.body.extend_from_slice(&after[..here]);
            return Ok(progress);
        }
        if &after[size..size + 2] != b"\r\n" {
            return Err("chunk data does not end with CRLF".into());
        }
        progress.body.extend_from_slice(&after[..size]);
        rest = &after[size + 2..];
    }
}

fn last_chunk(all: &[u8], after: &[u8], mut progress: Progress) -> Result<Progress, String> {
    let section = if after.starts_with(b"\r\n") {
        &after[..2]
    } else {
        let Some(size) = head_size(after) else { return Ok(progress) };
        let text = &after[..size - 4];
        progress.trailers = parse_fields(&split_lines(text))?;
        &after[..size]
    };
    progress.used = all.len() - after.len() + section.len();
    progress.done = true;
    Ok(progress)
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}
