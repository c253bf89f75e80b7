//! Who is visible: the one rule that compares the time of a row or a label with the time of a seed.
//!
//! Rows are visible up to a limit, so of a list in time order the visible part is a prefix. Implements
//! `documentation/sampling.md`, "Visibility".

/// The time of a seed that is asked with everything known.
pub const END_OF_TIME: i64 = i64::MAX;
const TRAIN: u8 = 0;

/// What the seed of one context may see.
#[derive(Clone, Copy, Debug)]
pub struct Visibility {
    limit: i64,
    seed_time: i64,
    seed_split: u8,
}

/// What is known of a label beside its value.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Observation time of its seed, microseconds.
    pub time: i64,
    /// Split of its seed.
    pub split: u8,
}

impl Visibility {
    /// The view of a seed. `is_strict` hides what happens at the very time of the seed; nothing later than `cutoff`
    /// is visible to anyone.
    pub fn new(seed_time: i64, seed_split: u8, is_strict: bool, cutoff: Option<i64>) -> Self {
        let by_seed = if is_strict { seed_time.saturating_sub(1) } else { seed_time };
        // NEVER_VISIBLE is the largest number; a limit below it hides null times from the end of time, too
        let limit = by_seed.min(cutoff.unwrap_or(i64::MAX)).min(i64::MAX - 1);
        Self { limit, seed_time, seed_split }
    }

    /// Whether a row of this time is visible.
    #[inline]
    pub fn row(&self, time: i64) -> bool {
        time <= self.limit
    }

    /// How many entries of an ascending list of row times are visible.
    #[inline]
    pub fn prefix(&self, times: &[i64]) -> usize {
        match times.last() {
            Some(&last) if self.row(last) => times.len(),
            _ => times.partition_point(|&time| self.row(time)),
        }
    }

    /// Whether another seed's label is visible: its window has closed and its split is not later. Labels at the end of
    /// time close only for seeds at the end of time, and only those of the training split.
    #[inline]
    pub fn label(&self, label: Label, horizon: Option<i64>) -> bool {
        if label.time == END_OF_TIME {
            return self.seed_time == END_OF_TIME && label.split == TRAIN;
        }
        let closes = horizon.and_then(|horizon| label.time.checked_add(horizon));
        label.split <= self.seed_split && closes.is_some_and(|closes| closes <= self.limit)
    }

    /// How many entries of an ascending list of observation times can have a visible label; [`Self::label`] decides.
    #[inline]
    pub fn label_prefix(&self, times: &[i64], horizon: Option<i64>) -> usize {
        if self.seed_time == END_OF_TIME {
            return times.len();
        }
        let closed =
            |&time: &i64| horizon.and_then(|horizon| time.checked_add(horizon)).is_some_and(|end| end <= self.limit);
        times.partition_point(closed)
    }

    /// Days from a row's time to the seed's, or `None` where one of them has no time.
    #[inline]
    pub fn age_days(&self, time: i64) -> Option<f32> {
        const US_PER_DAY: f64 = 86_400_000_000.0;
        if self.seed_time == END_OF_TIME || time == i64::MIN || time == i64::MAX {
            return None;
        }
        Some((self.seed_time.saturating_sub(time).max(0) as f64 / US_PER_DAY) as f32)
    }
}

/// Second of minute, minute of hour, hour of day, day of week (Monday 0), day of month (1-31), month (1-12), day of
/// year (1-366) of a moment, UTC.
#[inline]
pub fn calendar(time_us: i64) -> [i16; 7] {
    const US_PER_SECOND: i64 = 1_000_000;
    let seconds = time_us.div_euclid(US_PER_SECOND);
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
    let [day, month, day_of_year] = civil(days);
    [
        (second_of_day % 60) as i16,
        (second_of_day / 60 % 60) as i16,
        (second_of_day / 3_600) as i16,
        (days + 3).rem_euclid(7) as i16,
        day,
        month,
        day_of_year,
    ]
}

/// Day of month, month and day of year of a day counted from 1970-01-01.
/// Source: Neri, Schneider: Euclidean affine functions and their application to calendar algorithms (2022), figure 12.
#[inline]
fn civil(days: i64) -> [i16; 3] {
    // the calendar repeats every 400 years, so any day can be moved to where 32 bits suffice; counted from 0000-03-01
    let shifted = (days + 719_468).rem_euclid(146_097) as u32;
    let century = (4 * shifted + 3) / 146_097;
    let day_of_century = (4 * shifted + 3) % 146_097 / 4;
    let product = 2_939_745 * u64::from(4 * day_of_century + 3);
    let year_of_century = (product >> 32) as u32;
    let march_day = product as u32 / 2_939_745 / 4;
    let month_and_day = 2_141 * march_day + 197_913;
    let (march_month, day) = (month_and_day >> 16, (month_and_day & 0xffff) / 2_141 + 1);
    // months count from March; January and February belong to the next civil year
    let is_next_year = march_day >= 306;
    let year = 100 * century + year_of_century + u32::from(is_next_year);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (month, day_of_year) = if is_next_year {
        (march_month - 12, march_day - 305)
    } else {
        (march_month, march_day + 60 + u32::from(is_leap))
    };
    [day as i16, month as i16, day_of_year as i16]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE};

    #[test]
    fn rows_up_to_the_seed_are_visible() {
        let (loose, strict) = (Visibility::new(10, 0, false, None), Visibility::new(10, 0, true, None));
        assert!(loose.row(10) && loose.row(9) && !loose.row(11));
        assert!(!strict.row(10) && strict.row(9));
        let cut = Visibility::new(10, 0, false, Some(4));
        assert!(cut.row(4) && !cut.row(5));
        assert!(Visibility::new(3, 0, true, Some(4)).row(2) && !Visibility::new(3, 0, true, Some(4)).row(3));
    }

    #[test]
    fn rows_without_a_time_are_visible_to_all_or_none() {
        for seed_time in [i64::MIN, -1, 0, i64::MAX - 1, END_OF_TIME] {
            for is_strict in [false, true] {
                for cutoff in [None, Some(i64::MIN), Some(0), Some(i64::MAX)] {
                    let visibility = Visibility::new(seed_time, 0, is_strict, cutoff);
                    assert!(visibility.row(ALWAYS_VISIBLE));
                    assert!(!visibility.row(NEVER_VISIBLE));
                }
            }
        }
    }

    #[test]
    fn the_visible_prefix_is_what_the_rule_says() {
        let times = [ALWAYS_VISIBLE, -5, 0, 3, 3, 3, 4, NEVER_VISIBLE, NEVER_VISIBLE];
        for seed_time in [-9, -5, 0, 2, 3, 4, 5, END_OF_TIME] {
            for is_strict in [false, true] {
                let visibility = Visibility::new(seed_time, 0, is_strict, None);
                for len in 0..=times.len() {
                    let expected = times[..len].iter().filter(|&&time| visibility.row(time)).count();
                    assert_eq!(visibility.prefix(&times[..len]), expected, "{seed_time} {is_strict} {len}");
                }
            }
        }
    }

    #[test]
    fn labels_wait_for_their_window_and_split() {
        let visibility = Visibility::new(100, 1, false, None);
        let label = |time, split| Label { time, split };
        assert!(visibility.label(label(90, 0), Some(10)) && visibility.label(label(90, 1), Some(10)));
        assert!(!visibility.label(label(91, 0), Some(10)));
        assert!(!visibility.label(label(90, 2), Some(10)));
        assert!(!visibility.label(label(90, 0), None));
        assert!(!visibility.label(label(i64::MAX - 5, 0), Some(10)), "an overflowing window never closes");
        assert!(!visibility.label(label(END_OF_TIME, 0), Some(0)));
        assert!(!Visibility::new(100, 1, true, None).label(label(90, 0), Some(10)));
        assert!(!Visibility::new(100, 1, false, Some(99)).label(label(90, 0), Some(10)));
        let end = Visibility::new(END_OF_TIME, 2, false, None);
        assert!(end.label(label(END_OF_TIME, 0), None) && !end.label(label(END_OF_TIME, 1), None));
        let times = [1, 80, 90, 90, 91, i64::MAX - 1];
        assert_eq!(visibility.label_prefix(&times, Some(10)), 4);
        assert_eq!(visibility.label_prefix(&times, None), 0);
        assert_eq!(end.label_prefix(&times, None), times.len());
    }

    #[test]
    fn ages_are_days_and_never_negative() {
        let visibility = Visibility::new(86_400_000_000, 0, false, None);
        assert_eq!(visibility.age_days(0), Some(1.0));
        assert_eq!(visibility.age_days(2 * 86_400_000_000), Some(0.0));
        assert_eq!(visibility.age_days(ALWAYS_VISIBLE), None);
        assert_eq!(Visibility::new(END_OF_TIME, 0, false, None).age_days(0), None);
        assert!(visibility.age_days(i64::MIN + 1).is_some());
    }

    #[test]
    fn the_calendar_walks_day_by_day() {
        assert_eq!(calendar(0), [0, 0, 0, 3, 1, 1, 1]); // a Thursday
        assert_eq!(calendar(-1), [59, 59, 23, 2, 31, 12, 365]);
        assert_eq!(calendar(1_709_210_096_000_000), [56, 34, 12, 3, 29, 2, 60]); // 2024-02-29 12:34:56
        assert_eq!(calendar(i64::MIN)[..3], [5, 59, 19]);
        let _ = calendar(i64::MAX);
        // an independent count from 1600-01-01, a Saturday, over two centuries' ends
        let (mut year, mut month, mut day, mut day_of_year) = (1600i32, 1, 1, 1);
        let first = -135_140;
        for days in 0..200_000i64 {
            let expected = [0, 0, 0, ((days + 5) % 7) as i16, day, month, day_of_year];
            assert_eq!(calendar((first + days) * 86_400_000_000), expected, "{year}-{month}-{day}");
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i16::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, day_of_year) = (day + 1, day_of_year + 1);
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year, day_of_year) = (1, year + 1, 1);
            }
        }
    }
}
