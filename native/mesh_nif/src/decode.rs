//! Decodes maps from the control plane. An error names the key and the wrong value.
//!
//! A map must have exactly the keys that are read: both sides are built from the same source, so a key that
//! only one of them knows is a bug.

use std::any::type_name;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use rustler::{Atom, Decoder, MapIterator, Term};

/// Why a term is invalid, and its key: `limits.body_bytes: missing`.
#[derive(Debug)]
pub struct DecodeError {
    path: String,
    what: String,
}

impl DecodeError {
    pub fn new(what: impl Into<String>) -> DecodeError {
        DecodeError { path: String::new(), what: what.into() }
    }

    pub fn got(term: Term<'_>, expected: &str) -> DecodeError {
        DecodeError::new(format!("got {term:.200?}, expected {expected}"))
    }

    /// Prefixes the path with the key of the enclosing map.
    pub fn under(self, key: &str) -> DecodeError {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path if path.starts_with('[') => format!("{key}{path}"),
            path => format!("{key}.{path}"),
        };
        DecodeError { path, ..self }
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

pub type Decoded<T> = Result<T, DecodeError>;

pub struct Map<'a> {
    term: Term<'a>,
    known: Vec<Atom>,
}

impl<'a> Map<'a> {
    /// Calls `read` with the map, and rejects keys that `read` has not asked for.
    pub fn read<T>(term: Term<'a>, read: impl FnOnce(&mut Map<'a>) -> Decoded<T>) -> Decoded<T> {
        let size = term.map_size().map_err(|_| DecodeError::got(term, "a map"))?;
        let mut map = Map { term, known: Vec::new() };
        let value = read(&mut map)?;
        if size == map.known.len() {
            return Ok(value);
        }
        let mut keys = MapIterator::new(term).into_iter().flatten().map(|(key, _)| key);
        match keys.find(|key| !map.known.iter().any(|known| known == key)) {
            Some(key) => Err(DecodeError::new(format!("unknown key {key:?}"))),
            None => Ok(value),
        }
    }

    /// Decodes the value of a key with `read`.
    pub fn with<T>(&mut self, key: &str, read: impl FnOnce(Term<'a>) -> Decoded<T>) -> Decoded<T> {
        let missing = |_| DecodeError::new("missing");
        let atom = Atom::from_str(self.term.get_env(), key).map_err(missing);
        let value = atom.and_then(|atom| {
            self.known.push(atom);
            self.term.map_get(atom).map_err(missing)
        });
        value.and_then(read).map_err(|wrong| wrong.under(key))
    }

    /// The same for a key that may be missing.
    pub fn maybe<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(Term<'a>) -> Decoded<T>,
    ) -> Decoded<Option<T>> {
        let atom = Atom::from_str(self.term.get_env(), key);
        let is_there = atom.is_ok_and(|atom| self.term.map_get(atom).is_ok());
        if is_there { self.with(key, read).map(Some) } else { Ok(None) }
    }

    pub fn get<T: Decoder<'a>>(&mut self, key: &str) -> Decoded<T> {
        self.with(key, decoded)
    }

    /// Not `get::<u16>`, because rustler truncates larger numbers.
    pub fn port(&mut self, key: &str) -> Decoded<u16> {
        self.with(key, |term| {
            let port = term.decode::<u64>().ok().and_then(|port| port.try_into().ok());
            port.ok_or_else(|| DecodeError::got(term, "a port"))
        })
    }

    /// Milliseconds; `nil` is no limit.
    pub fn millis(&mut self, key: &str) -> Decoded<Option<Duration>> {
        Ok(self.get::<Option<u64>>(key)?.map(Duration::from_millis))
    }
}

pub fn decoded<'a, T: Decoder<'a>>(term: Term<'a>) -> Decoded<T> {
    term.decode().map_err(|_| DecodeError::got(term, name::<T>()))
}

/// Parses a text.
pub fn parsed<T: FromStr>(term: Term<'_>) -> Decoded<T> {
    let text = term.decode::<&str>().ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| DecodeError::got(term, name::<T>()))
}

/// The elements of a list. rustler panics at the end of an improper one.
pub fn terms<'a>(term: Term<'a>, expected: &str) -> Decoded<Vec<Term<'a>>> {
    let items = term.list_length().and_then(|_| term.decode());
    items.map_err(|_| DecodeError::got(term, expected))
}

/// Decodes each element with `read`. An error has the index.
pub fn list<'a, T>(term: Term<'a>, read: impl Fn(Term<'a>) -> Decoded<T>) -> Decoded<Vec<T>> {
    let items = terms(term, "a list")?.into_iter().enumerate();
    items
        .map(|(index, item)| read(item).map_err(|wrong| wrong.under(&format!("[{index}]"))))
        .collect()
}

/// Decodes `nil`, or a value with `read`.
pub fn optional<'a, T>(
    term: Term<'a>,
    read: impl FnOnce(Term<'a>) -> Decoded<T>,
) -> Decoded<Option<T>> {
    if term.decode::<Atom>().is_ok_and(|atom| atom == rustler::types::atom::nil()) {
        return Ok(None);
    }
    read(term).map(Some)
}

/// Decodes one of several atoms.
pub fn choice<T: Copy>(term: Term<'_>, choices: &[(&str, T)]) -> Decoded<T> {
    let name = term.atom_to_string().unwrap_or_default();
    let found = choices.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(known, _)| format!(":{known}")).collect();
        DecodeError::got(term, &names.join(" or "))
    })
}

/// The type's name without its path.
fn name<T>() -> &'static str {
    let full = type_name::<T>();
    let generic = full.find('<').unwrap_or(full.len());
    full[..generic].rfind("::").map_or(full, |at| &full[at + 2..])
}

/// A struct whose fields are keys of a map: `fields!(map.get => Limits { head_bytes, body_bytes })`.
macro_rules! fields {
    ($map:ident.$read:ident => $name:ident { $($key:ident),+ $(; $($rest:tt)+)? }) => {
        $name { $($key: $map.$read(stringify!($key))?,)+ $($($rest)+)? }
    };
}
pub(crate) use fields;
