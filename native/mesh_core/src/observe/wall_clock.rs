//! Reads calendar time, for people and other machines.
//!
//! It may be set at any time, so nothing may wait for it or be measured by it. No other module reads it
//! (clippy.toml).

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// Error of the clock in seconds.
#[cfg(test)]
pub static OFFSET: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

#[expect(clippy::disallowed_methods, reason = "this is where calendar time is read")]
pub fn now() -> SystemTime {
    let now = SystemTime::now();
    #[cfg(test)]
    let now = {
        let offset = OFFSET.load(std::sync::atomic::Ordering::SeqCst);
        let by = std::time::Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { now - by } else { now + by }
    };
    now
}

/// The current time in the format of the `Date` field (RFC 9110 section 5.6.7).
pub fn http_date() -> String {
    http_date_of(now())
}

pub fn http_date_of(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default()
}
