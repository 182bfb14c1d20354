// SPDX-License-Identifier: GPL-2.0

//! How names, times and numbers are shown.

use std::fmt::Write;

/// Bytes as text; what could confuse a terminal is escaped.
pub fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for ch in chunk.valid().chars() {
            if ch.is_control() || ch == '\\' {
                out.extend(ch.escape_default());
            } else {
                out.push(ch);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A message on one line; names in it may be escaped already, so that backslashes stay.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for ch in text.chars() {
        match ch.is_control() {
            true => out.extend(ch.escape_default()),
            false => out.push(ch),
        }
    }
    out
}

/// Seconds since 1970 as a date in UTC, without the nanoseconds.
pub fn date(secs: i64) -> String {
    let (days, rest) = (secs.div_euclid(86400), secs.rem_euclid(86400));
    // Years start in March here, so that the leap day is the last of them; eras of 400 years.
    let days = i128::from(days) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i128::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}",
        day - (153 * shifted + 2) / 5 + 1,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A UUID as text.
pub fn uuid(raw: &[u8; 16]) -> String {
    let mut out = String::new();
    for (index, byte) in raw.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(-1), "1969-12-31 23:59:59");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00");
        // The extremes only must not overflow.
        assert!(date(i64::MAX).len() > 19 && date(i64::MIN).starts_with('-'));
    }

    #[test]
    fn names() {
        assert_eq!(show("grün".as_bytes()), "grün");
        assert_eq!(printable("a\x1b[2J\\\u{9b}b\n"), "a\\u{1b}[2J\\\\u{9b}b\\n");
        assert_eq!(show(b"a\x1b[2J\n\xff\\"), "a\\u{1b}[2J\\n\\xff\\\\");
    }
}
