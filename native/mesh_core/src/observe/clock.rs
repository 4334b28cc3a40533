//! Formats times for log lines, in UTC. Formats each second once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::wall_clock;

/// Converts the monotonic times of records to calendar time.
pub struct Clock {
    now: (Instant, SystemTime),
    second: u64,
    text: String,
    style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `10/Oct/2000:13:55:36 +0000`
    Common,
    /// `2000-10-10T13:55:36`, followed by milliseconds.
    Iso,
}

impl Clock {
    pub fn new(style: Style) -> Clock {
        let now = (Instant::now(), wall_clock::now());
        Clock { now, second: u64::MAX, text: String::new(), style }
    }

    /// Reads both clocks again: the calendar clock may have been set.
    pub fn begin(&mut self) {
        self.now = (Instant::now(), wall_clock::now());
    }

    /// Returns the text of the second, and the milliseconds with a leading point.
    pub fn tell(&mut self, at: Instant) -> (&str, [u8; 4]) {
        let ago = self.now.0.saturating_duration_since(at);
        let time = self.now.1.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            self.text = text(self.second, self.style);
        }
        let millis = since.subsec_millis();
        let digit = |n: u32| b'0' + (n % 10) as u8;
        (&self.text, [b'.', digit(millis / 100), digit(millis / 10), digit(millis)])
    }
}

fn text(second: u64, style: Style) -> String {
    let second = i64::try_from(second).unwrap_or_default();
    let format = match style {
        Style::Common => "%d/%b/%Y:%H:%M:%S +0000",
        Style::Iso => "%Y-%m-%dT%H:%M:%S",
    };
    Timestamp::from_second(second).unwrap_or_default().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_formatted_as_dates() {
        assert_eq!(text(0, Style::Common), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(text(971_186_136, Style::Common), "10/Oct/2000:13:55:36 +0000");
        assert_eq!(text(951_782_399, Style::Iso), "2000-02-28T23:59:59");
        assert_eq!(text(951_782_400, Style::Iso), "2000-02-29T00:00:00");
        assert_eq!(text(4_107_542_400, Style::Iso), "2100-03-01T00:00:00");
        assert_eq!(text(1_735_689_599, Style::Iso), "2024-12-31T23:59:59");
    }

    #[test]
    fn times_in_the_past_are_converted() {
        let mut clock = Clock::new(Style::Iso);
        clock.now.1 = UNIX_EPOCH + Duration::from_secs(86_400);
        let at = clock.now.0.checked_sub(Duration::from_millis(1500));
        if let Some(at) = at {
            assert_eq!(clock.tell(at), ("1970-01-01T23:59:58", *b".500"));
        }
    }
}
