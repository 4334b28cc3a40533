//! `WORD WORD --name value --flag`: enough for a tool that only scripts start.

use std::collections::HashMap;
use std::str::FromStr;

#[derive(Default)]
pub struct Args {
    words: Vec<String>,
    options: HashMap<String, String>,
}

impl Args {
    pub fn new(given: impl Iterator<Item = String>) -> Args {
        let mut args = Args::default();
        let mut given = given.peekable();
        while let Some(word) = given.next() {
            if let Some(name) = word.strip_prefix("--") {
                let value = given.next_if(|next| !next.starts_with("--")).unwrap_or_default();
                args.options.insert(name.to_string(), value);
            } else {
                args.words.push(word);
            }
        }
        args
    }

    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    pub fn words(&self) -> &[String] {
        &self.words
    }

    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.options.get(name).map_or(default, String::as_str)
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> T {
        self.options.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// `--pids 12,13`
    pub fn pids(&self) -> Vec<u32> {
        self.text("pids", "").split(',').filter_map(|pid| pid.parse().ok()).collect()
    }
}
