//! ISO 8601 texts and microseconds since 1970-01-01 UTC: pure arithmetic on the proleptic Gregorian calendar.

/// Microseconds per day.
pub const DAY_US: i64 = 86_400_000_000;

/// The moment of `YYYY-MM-DD`, optionally followed by `T` or a space, `HH:MM[:SS[.fraction]]` and `Z` or `+HH[:MM]`.
///
/// Without a zone the text is UTC; digits beyond microseconds are cut off. `None` for anything else, for dates that
/// do not exist and for years outside of 0001 to 9999.
///
/// ```
/// assert_eq!(headwater::timestamp::parse("1970-01-02"), Some(86_400_000_000));
/// assert_eq!(headwater::timestamp::parse("1970-01-01 01:00:00.5+01:00"), Some(500_000));
/// assert_eq!(headwater::timestamp::parse("2023-02-29"), None);
/// ```
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.trim_ascii().as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let days = days_from_civil(number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?)?;
    let midnight = days * DAY_US;
    let Some((&separator, rest)) = rest.split_first() else { return Some(midnight) };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (clock, zone) =
        rest.split_at(rest.iter().position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-')).unwrap_or(rest.len()));
    Some(midnight + parse_clock(clock)? - zone_us(zone)?)
}

/// `YYYY-MM-DD`, with ` HH:MM:SS` unless it is midnight and the fraction unless it is zero; UTC.
///
/// ```
/// assert_eq!(headwater::timestamp::format(-1), "1969-12-31 23:59:59.999999");
/// ```
pub fn format(time_us: i64) -> String {
    let (year, month, day) = civil_from_days(time_us.div_euclid(DAY_US));
    let clock = time_us.rem_euclid(DAY_US);
    let (seconds, fraction) = (clock / 1_000_000, clock % 1_000_000);
    let date = format!("{year:04}-{month:02}-{day:02}");
    if clock == 0 {
        return date;
    }
    let time = format!("{date} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { time } else { format!("{time}.{fraction:06}") }
}

fn number(digits: &[u8]) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

/// Microseconds since midnight of `HH:MM[:SS[.fraction]]`.
pub(crate) fn clock_us(clock: &str) -> Option<i64> {
    parse_clock(clock.as_bytes())
}

fn parse_clock(clock: &[u8]) -> Option<i64> {
    let (clock, fraction) = match clock.iter().position(|&byte| byte == b'.') {
        Some(point) => (&clock[..point], Some(&clock[point + 1..])),
        None => (clock, None),
    };
    let mut parts = clock.split(|&byte| byte == b':');
    let mut part = |below: i64| parts.next().filter(|part| part.len() == 2).and_then(number).filter(|&n| n < below);
    let (hours, minutes) = (part(24)?, part(60)?);
    let seconds = if clock.len() > 5 { part(60)? } else { 0 };
    let has_rest = parts.next().is_some() || (fraction.is_some() && clock.len() <= 5);
    let micros = match fraction {
        Some(digits) if digits.len() <= 9 => number(digits)? * 10i64.pow(9 - digits.len() as u32) / 1000,
        Some(_) => return None,
        None => 0,
    };
    (!has_rest).then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

fn zone_us(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [] | b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        _ => -1,
    };
    let (hours, minutes) = match &zone[1..] {
        [h1, h2] => (number(&[*h1, *h2])?, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

/// Days since 1970-01-01 of a date, or `None` where there is no such date.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if year < 1 || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a day since 1970-01-01. Source: as above, `civil_from_days`.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_formatted_is_parsed(time_us in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            prop_assert_eq!(parse(&format(time_us)), Some(time_us));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", digits in "[0-9TZ:. +-]{0,40}") {
            let _ = (parse(&text), parse(&digits));
        }
    }

    #[test]
    fn known_moments() {
        assert_eq!(parse("2020-02-29T12:30"), Some(1_582_979_400_000_000));
        assert_eq!(parse("2020-02-29 12:30:00Z"), Some(1_582_979_400_000_000));
        assert_eq!(parse("2020-02-29 12:30:00.123456789-0230"), Some(1_582_979_400_123_456 + 9_000_000_000));
        assert_eq!(parse("0001-01-01"), Some(-62_135_596_800_000_000));
        for bad in [
            "",
            "2020",
            "2020-13-01",
            "2020-00-10",
            "2021-02-29",
            "2020-01-01x",
            "2020-01-01 25:00",
            "2020-01-01 1:00",
            "2020-01-01 10:00.5",
            "2020-01-01 10:00:61",
            "2020-01-01 10:00:00:00",
            "2020-01-01 10:00:00+1",
            "20200101",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(
            (format(0), format(i64::MAX).is_empty(), format(i64::MIN).is_empty()),
            ("1970-01-01".into(), false, false)
        );
    }
}
