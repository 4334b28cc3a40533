//! Calendar time, for what is told to people and to other machines. It may be put forward or back at
//! any time, so nothing is waited for or measured by it, and it is read nowhere else (clippy.toml).

use std::time::SystemTime;

#[expect(clippy::disallowed_methods, reason = "this is where calendar time is told")]
pub fn now() -> SystemTime {
    let now = SystemTime::now();
    #[cfg(test)]
    let now = crate::wall_tests::put_right(now);
    now
}

/// The moment as the `Date` field has it (RFC 9110 section 5.6.7).
pub fn http_date() -> String {
    httpdate::fmt_http_date(now())
}
