//! Reads the maps of the control plane. An error names the key and what is there instead.
//!
//! A map must have every key that is read, and no other: both sides are built from the same source, so
//! a key that only one of them knows is a mistake there.

use std::any::type_name;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use rustler::{Atom, Decoder, MapIterator, Term};

/// What is wrong with a term, and at which key: `limits.body_bytes: missing`.
#[derive(Debug)]
pub struct Wrong {
    path: String,
    what: String,
}

impl Wrong {
    pub fn new(what: impl Into<String>) -> Wrong {
        Wrong { path: String::new(), what: what.into() }
    }

    pub fn got(term: Term<'_>, expected: &str) -> Wrong {
        Wrong::new(format!("got {term:.200?}, expected {expected}"))
    }

    /// The same, seen from the map in which it is below this key.
    pub fn below(self, key: &str) -> Wrong {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path if path.starts_with('[') => format!("{key}{path}"),
            path => format!("{key}.{path}"),
        };
        Wrong { path, ..self }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

pub type Read<T> = Result<T, Wrong>;

pub struct Map<'a> {
    term: Term<'a>,
    known: Vec<Atom>,
}

impl<'a> Map<'a> {
    /// Calls `read` with the map. Keys that `read` has not asked for are refused.
    pub fn read<T>(term: Term<'a>, read: impl FnOnce(&mut Map<'a>) -> Read<T>) -> Read<T> {
        let size = term.map_size().map_err(|_| Wrong::got(term, "a map"))?;
        let mut map = Map { term, known: Vec::new() };
        let value = read(&mut map)?;
        if size == map.known.len() {
            return Ok(value);
        }
        let mut keys = MapIterator::new(term).into_iter().flatten().map(|(key, _)| key);
        match keys.find(|key| !map.known.iter().any(|known| known == key)) {
            Some(key) => Err(Wrong::new(format!("unknown key {key:?}"))),
            None => Ok(value),
        }
    }

    /// What `read` makes of the value of this key.
    pub fn with<T>(&mut self, key: &str, read: impl FnOnce(Term<'a>) -> Read<T>) -> Read<T> {
        let missing = |_| Wrong::new("missing");
        let atom = Atom::from_str(self.term.get_env(), key).map_err(missing);
        let value = atom.and_then(|atom| {
            self.known.push(atom);
            self.term.map_get(atom).map_err(missing)
        });
        value.and_then(read).map_err(|wrong| wrong.below(key))
    }

    pub fn get<T: Decoder<'a>>(&mut self, key: &str) -> Read<T> {
        self.with(key, decoded)
    }

    /// Not `get::<u16>`: rustler cuts what is larger.
    pub fn port(&mut self, key: &str) -> Read<u16> {
        self.with(key, |term| {
            let port = term.decode::<u64>().ok().and_then(|port| port.try_into().ok());
            port.ok_or_else(|| Wrong::got(term, "a port"))
        })
    }

    /// Milliseconds; `nil` is no limit.
    pub fn millis(&mut self, key: &str) -> Read<Option<Duration>> {
        Ok(self.get::<Option<u64>>(key)?.map(Duration::from_millis))
    }
}

pub fn decoded<'a, T: Decoder<'a>>(term: Term<'a>) -> Read<T> {
    term.decode().map_err(|_| Wrong::got(term, name::<T>()))
}

/// A text that says what it is.
pub fn parsed<T: FromStr>(term: Term<'_>) -> Read<T> {
    let text = term.decode::<&str>().ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Wrong::got(term, name::<T>()))
}

/// Each with `read`. An error has the index.
pub fn list<'a, T>(term: Term<'a>, read: impl Fn(Term<'a>) -> Read<T>) -> Read<Vec<T>> {
    let items: Vec<Term<'a>> = term.decode().map_err(|_| Wrong::got(term, "a list"))?;
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| read(item).map_err(|wrong| wrong.below(&format!("[{index}]"))))
        .collect()
}

/// `nil`, or what `read` makes of it.
pub fn optional<'a, T>(term: Term<'a>, read: impl FnOnce(Term<'a>) -> Read<T>) -> Read<Option<T>> {
    if term.decode::<Atom>().is_ok_and(|atom| atom == rustler::types::atom::nil()) {
        return Ok(None);
    }
    read(term).map(Some)
}

/// One of some atoms, by its name.
pub fn choice<T: Copy>(term: Term<'_>, choices: &[(&str, T)]) -> Read<T> {
    let name = term.atom_to_string().unwrap_or_default();
    let found = choices.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(known, _)| format!(":{known}")).collect();
        Wrong::got(term, &names.join(" or "))
    })
}

/// `core::net::ip_addr::IpAddr` is for nobody to read.
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
