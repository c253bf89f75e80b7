//! Durations and the moments at which a task's query asks its question.

use super::json::Json;
use super::parse::Fields;
use super::{SplitTimes, Timestamps};
use crate::error::Result;
use crate::timestamp;

const UNITS: [(&str, &str, i64); 5] = [
    ("second", "s", 1_000_000),
    ("minute", "min", 60_000_000),
    ("hour", "h", 3_600_000_000),
    ("day", "d", timestamp::DAY_US),
    ("week", "w", 7 * timestamp::DAY_US),
];
/// What stands for the window in a query.
const WINDOW_PARAMETERS: [&str; 2] = ["{timedelta}", "{self.timedelta}"];
/// The relation a query finds its moments in.
const RELATION: &str = "timestamps";

/// What a task says of its window and its moments.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub timedelta_us: Option<i64>,
    pub timestamps: Option<Timestamps>,
    pub num_eval_timestamps: Option<u32>,
}

impl Moments {
    /// Reads `timedelta`, `timestamps` and `num_eval_timestamps` of a task; `tables` are the names of the database.
    pub(super) fn parse<'a>(
        fields: &Fields<'_>,
        query: Option<&str>,
        split: Option<SplitTimes>,
        mut tables: impl Iterator<Item = &'a str>,
    ) -> Result<Self> {
        let given = ["timedelta", "timestamps", "num_eval_timestamps"];
        let Some(query) = query else {
            return match given.into_iter().find(|field| fields.get(field).is_some()) {
                Some(field) => Err(fields.fault(format!("`{field}` is for tasks with a `query`; leave it out"))),
                None => Ok(Self::default()),
            };
        };
        let timedelta_us = parse_duration(fields, "timedelta")?;
        if timedelta_us == Some(0) {
            return Err(fields.fault("`timedelta` is 0; say how long the window of a label is, as `30 days`"));
        }
        if let Some(parameter) = WINDOW_PARAMETERS.into_iter().find(|name| query.contains(name))
            && timedelta_us.is_none()
        {
            let hint = "add it, as `\"timedelta\": \"30 days\"`";
            return Err(fields.fault(format!("the query uses `{parameter}`, but the task has no `timedelta`; {hint}")));
        }
        let timestamps = parse_timestamps(fields, timedelta_us)?;
        let num_eval_timestamps = parse_count(fields)?;
        if timestamps.is_some()
            && let Some(table) = tables.find(|name| name.eq_ignore_ascii_case(RELATION))
        {
            let remedy = "rename the table, or write the moments into the query";
            return Err(fields.fault(format!("`timestamps` hides the table `{table}` of the same name; {remedy}")));
        }
        if num_eval_timestamps.is_some() && (timestamps.is_some() || timedelta_us.is_none() || split.is_none()) {
            let needs = "needs `timedelta` and `split`, whose times it counts from, and no `timestamps`";
            return Err(fields.fault(format!("`num_eval_timestamps` {needs}")));
        }
        Ok(Self { timedelta_us, timestamps, num_eval_timestamps })
    }
}

fn parse_timestamps(fields: &Fields<'_>, timedelta_us: Option<i64>) -> Result<Option<Timestamps>> {
    let expected = "a list of times, or an object with `start`, `end` and `every`";
    match fields.get("timestamps") {
        None => Ok(None),
        Some(Json::List(list)) => {
            let mut times = Vec::with_capacity(list.len());
            for time in list {
                let Json::Text(text) = time else { return Err(fields.wrong("timestamps", expected, time)) };
                times.push(parse_time(fields, "timestamps", text)?);
            }
            times.sort_unstable();
            times.dedup();
            if times.is_empty() {
                return Err(fields.fault("`timestamps` is an empty list; name at least one moment"));
            }
            Ok(Some(Timestamps::List(times)))
        }
        Some(Json::Object(object)) => {
            let series = Fields { place: format!("{}, `timestamps`", fields.place), object };
            series.only(&["start", "end", "every"])?;
            let time = |name| series.text(name)?.map(|text| parse_time(&series, name, text)).transpose();
            let (start_us, end_us) = (time("start")?, time("end")?);
            let every_us = parse_duration(&series, "every")?.or(timedelta_us).filter(|&every| every > 0);
            let every_us = every_us.ok_or_else(|| {
                series.fault("`every` is missing; say how far apart the moments are, as `30 days`, or give the task a `timedelta`")
            })?;
            if start_us.zip(end_us).is_some_and(|(start, end)| start > end) {
                return Err(series.fault("`start` is later than `end`"));
            }
            Ok(Some(Timestamps::Every { start_us, end_us, every_us }))
        }
        Some(other) => Err(fields.wrong("timestamps", expected, other)),
    }
}

fn parse_count(fields: &Fields<'_>) -> Result<Option<u32>> {
    match fields.get("num_eval_timestamps") {
        None => Ok(None),
        Some(Json::Number(number)) if *number >= 1.0 && *number <= 1e9 && number.fract() == 0.0 => {
            Ok(Some(*number as u32))
        }
        Some(Json::Number(number)) => {
            Err(fields.fault(format!("`num_eval_timestamps` is {number}; expected a whole number from 1 on")))
        }
        Some(other) => Err(fields.wrong("num_eval_timestamps", "a whole number", other)),
    }
}

/// A date or time in a field.
pub(super) fn parse_time(fields: &Fields<'_>, field: &str, text: &str) -> Result<i64> {
    timestamp::parse(text).ok_or_else(|| {
        fields.fault(format!("`{field}` is `{text}`, expected a date or time as 2020-01-31 or 2020-01-31 12:00:00"))
    })
}

/// A duration in a field, microseconds: a number and a unit (`30 days`), or that and a clock (`30 days 12:00:00`).
pub(super) fn parse_duration(fields: &Fields<'_>, field: &str) -> Result<Option<i64>> {
    let Some(text) = fields.text(field)? else { return Ok(None) };
    duration_us(text.trim()).map(Some).ok_or_else(|| {
        fields.fault(format!(
            "`{field}` is `{text}`, expected a number and seconds, minutes, hours, days or weeks, as `30 days`"
        ))
    })
}

fn duration_us(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (number, rest) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let rest = rest.trim_start();
    let (unit, clock) = rest.split_once(' ').map_or((rest, None), |(unit, clock)| (unit, Some(clock.trim())));
    let lower = unit.to_ascii_lowercase();
    let word = if lower.len() > 1 { lower.strip_suffix('s').unwrap_or(&lower) } else { &lower };
    let (_, _, unit_us) = UNITS.iter().find(|(name, short, _)| word == *name || word == *short)?;
    let whole = i64::from(number.parse::<u32>().ok()?).checked_mul(*unit_us)?;
    whole.checked_add(clock.map_or(Some(0), timestamp::clock_us)?)
}

/// A duration in the largest unit that divides it; parses to the same duration.
pub(super) fn format_duration(duration_us: i64) -> String {
    let unit = UNITS.iter().rev().find(|(_, _, unit_us)| duration_us != 0 && duration_us % unit_us == 0);
    match unit {
        Some((unit, _, unit_us)) => format!("{} {unit}s", duration_us / unit_us),
        None if duration_us == 0 => "0".into(),
        None => {
            let clock = timestamp::format(duration_us.rem_euclid(timestamp::DAY_US));
            let clock = clock.split_once(' ').map_or("00:00:00", |(_, clock)| clock);
            format!("{} days {clock}", duration_us / timestamp::DAY_US)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_and_pandas_write_them() {
        let day = timestamp::DAY_US;
        let known = [
            ("30 days", 30 * day),
            ("1 day", day),
            ("12 hours", day / 2),
            ("2 weeks", 14 * day),
            ("60 days 00:00:00", 60 * day),
            ("0 days 06:00:00", day / 4),
            ("90d", 90 * day),
            ("4 D", 4 * day),
            ("15 min", 15 * 60_000_000),
            ("10 s", 10_000_000),
            ("0", 0),
        ];
        for (text, expected) in known {
            assert_eq!(duration_us(text), Some(expected), "{text}");
            assert_eq!(duration_us(&format_duration(expected)), Some(expected), "{text}");
        }
        for text in ["", "days", "-1 days", "1.5 days", "3 months", "1 days 25:00:00", "99999999999 days", "5", "1 s s"]
        {
            assert_eq!(duration_us(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_no_unit_divides_keeps_its_fraction() {
        let duration = timestamp::DAY_US + 1_500_000;
        assert_eq!(format_duration(duration), "1 days 00:00:01.500000");
        assert_eq!(duration_us(&format_duration(duration)), Some(duration));
    }
}
