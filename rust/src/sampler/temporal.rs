//! Who is visible: the one rule that compares the time of a row or a label with the time of a seed.
//!
//! Rows are visible up to a limit, so of a list in time order the visible part is a prefix. Implements
//! `documentation/sampling.md`, "Visibility".

use super::config::SamplerConfig;
use crate::format::record::ALWAYS_VISIBLE;

/// The time of a seed that is asked with everything known.
pub const END_OF_TIME: i64 = i64::MAX;
const TRAIN: u8 = 0;

/// What the seed of one context may see.
#[derive(Clone, Copy, Debug)]
pub struct Visibility {
    limit: i64,
    /// Children and labels before this are too old, but for rows without a time.
    oldest: i64,
    seed_time: i64,
    seed_split: u8,
}

/// The visible entries of a list in time order: the first `head`, and after a gap of `skip` the following ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// Entries before the gap.
    pub head: usize,
    /// Entries in the gap.
    pub skip: usize,
    /// Visible entries in all.
    pub len: usize,
}

impl Visible {
    /// Everything from `skip` up to `end`.
    const fn range(skip: usize, end: usize) -> Self {
        Self { head: 0, skip, len: end.saturating_sub(skip) }
    }

    /// Where the `nth` visible entry is in the list.
    #[inline]
    pub const fn position(self, nth: u32) -> u32 {
        if (nth as usize) < self.head { nth } else { nth + self.skip as u32 }
    }
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
    /// The view of a seed. Times are hidden as the options say: of what happens at the very time of the seed, after
    /// the cut-off, before the look-back window.
    pub fn new(seed_time: i64, seed_split: u8, config: &SamplerConfig) -> Self {
        let by_seed = if config.strict_time { seed_time.saturating_sub(1) } else { seed_time };
        // NEVER_VISIBLE is the largest number; a limit below it hides null times from the end of time, too
        let limit = by_seed.min(config.database_cutoff.unwrap_or(i64::MAX)).min(i64::MAX - 1);
        let window = config.lookback.filter(|_| seed_time != END_OF_TIME);
        let oldest = window.map_or(i64::MIN, |lookback| seed_time.saturating_sub(lookback));
        Self { limit, oldest, seed_time, seed_split }
    }

    /// The view on what was known `lag` microseconds before the seed. A seed at the end of time has none.
    pub fn delayed(self, lag: i64) -> Self {
        let is_timeless = self.seed_time == END_OF_TIME;
        let limit = if is_timeless { self.limit } else { self.limit.min(self.seed_time.saturating_sub(lag)) };
        Self { limit, ..self }
    }

    /// Whether a row of this time is visible as a parent.
    #[inline]
    pub fn row(&self, time: i64) -> bool {
        time <= self.limit
    }

    /// Whether a child or a label of this time is hidden for being before the look-back window.
    pub fn is_too_old(&self, time: i64) -> bool {
        time < self.oldest && time != ALWAYS_VISIBLE
    }

    /// Whether a child of this time is visible.
    #[inline]
    pub fn child(&self, time: i64) -> bool {
        self.row(time) && !self.is_too_old(time)
    }

    /// Which entries of an ascending list of the times of `len` children are visible.
    pub fn children(&self, len: u32, time: impl Fn(u32) -> i64) -> Visible {
        self.visible(first_not(len, |at| self.row(time(at))), time)
    }

    /// Which entries of an ascending list of the times of children are visible; those from `end` on are too late.
    #[inline]
    pub fn visible(&self, end: u32, time: impl Fn(u32) -> i64) -> Visible {
        if self.oldest == i64::MIN || end == 0 || time(0) >= self.oldest {
            return Visible::range(0, end as usize);
        }
        let head = first_not(end, |at| time(at) == ALWAYS_VISIBLE);
        let skip = first_not(end, |at| time(at) < self.oldest) - head;
        Visible { head: head as usize, skip: skip as usize, len: (end - skip) as usize }
    }

    /// Whether another seed's label is visible: its window has closed and its split is not later. Labels at the end of
    /// time close only for seeds at the end of time, and only those of the training split.
    #[inline]
    pub fn label(&self, label: Label, horizon: Option<i64>) -> bool {
        if label.time == END_OF_TIME {
            return self.seed_time == END_OF_TIME && label.split == TRAIN;
        }
        let closes = horizon.and_then(|horizon| label.time.checked_add(horizon));
        label.split <= self.seed_split && label.time >= self.oldest && closes.is_some_and(|closes| closes <= self.limit)
    }

    /// Which entries of an ascending list of observation times can have a visible label; [`Self::label`] decides.
    #[inline]
    pub fn labels(&self, times: &[i64], horizon: Option<i64>) -> Visible {
        self.labels_among(times.len() as u32, |at| times[at as usize], horizon)
    }

    /// The same of a list of `len` times.
    #[inline]
    pub fn labels_among(&self, len: u32, time: impl Fn(u32) -> i64, horizon: Option<i64>) -> Visible {
        if self.seed_time == END_OF_TIME {
            return Visible::range(0, len as usize);
        }
        let closed = |time: i64| horizon.and_then(|horizon| time.checked_add(horizon));
        let end = first_not(len, |at| closed(time(at)).is_some_and(|end| end <= self.limit));
        Visible::range(first_not(end, |at| time(at) < self.oldest) as usize, end as usize)
    }

    /// The latest split whose labels are visible.
    pub fn split(&self) -> u8 {
        self.seed_split
    }

    /// The view of the seed's on what happened up to the time of an example, but for its label.
    pub fn as_of(&self, time: i64, config: &SamplerConfig) -> Self {
        let by_example = if config.strict_time { time.saturating_sub(1) } else { time };
        Self { limit: self.limit.min(by_example), ..*self }
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

/// The first of `0..len` for which something that holds for a prefix does not hold.
fn first_not(len: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = u32::midpoint(low, high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
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
    use crate::format::record::NEVER_VISIBLE;

    fn view(seed_time: i64, split: u8, strict_time: bool, database_cutoff: Option<i64>) -> Visibility {
        Visibility::new(seed_time, split, &SamplerConfig { strict_time, database_cutoff, ..SamplerConfig::default() })
    }

    fn window(seed_time: i64, lookback: i64) -> Visibility {
        Visibility::new(seed_time, 0, &SamplerConfig { lookback: Some(lookback), ..SamplerConfig::default() })
    }

    #[test]
    fn rows_up_to_the_seed_are_visible() {
        let (loose, strict) = (view(10, 0, false, None), view(10, 0, true, None));
        assert!(loose.row(10) && loose.row(9) && !loose.row(11));
        assert!(!strict.row(10) && strict.row(9));
        let cut = view(10, 0, false, Some(4));
        assert!(cut.row(4) && !cut.row(5));
        assert!(view(3, 0, true, Some(4)).row(2) && !view(3, 0, true, Some(4)).row(3));
    }

    #[test]
    fn a_lag_moves_the_limit_and_nothing_else() {
        let late = view(10, 0, false, None).delayed(4);
        assert!(late.row(6) && !late.row(7));
        assert!(late.label(Label { time: 5, split: 0 }, Some(1)) && !late.label(Label { time: 6, split: 0 }, Some(1)));
        assert_eq!(late.age_days(10 - 86_400_000_000), Some(1.0), "ages count from the seed");
        assert!(view(10, 0, false, Some(3)).delayed(4).row(3) && !view(10, 0, false, Some(3)).delayed(4).row(4));
        assert!(!view(10, 0, true, None).delayed(0).row(10), "the very time stays hidden");
        assert!(!window(10, 3).delayed(2).is_too_old(7) && window(10, 3).delayed(2).is_too_old(6));
        assert!(view(i64::MIN + 1, 0, false, None).delayed(i64::MAX).row(ALWAYS_VISIBLE));
        assert!(view(END_OF_TIME, 0, false, None).delayed(i64::MAX).row(i64::MAX - 1));
    }

    #[test]
    fn rows_without_a_time_are_visible_to_all_or_none() {
        for seed_time in [i64::MIN, -1, 0, i64::MAX - 1, END_OF_TIME] {
            for is_strict in [false, true] {
                for cutoff in [None, Some(i64::MIN), Some(0), Some(i64::MAX)] {
                    let visibility = view(seed_time, 0, is_strict, cutoff);
                    assert!(visibility.row(ALWAYS_VISIBLE));
                    assert!(!visibility.row(NEVER_VISIBLE));
                }
            }
        }
    }

    #[test]
    fn the_window_looks_back_so_far() {
        let times = [ALWAYS_VISIBLE, ALWAYS_VISIBLE, -9, 0, 3, 3, 5, 8, NEVER_VISIBLE];
        for seed_time in [-9, 0, 3, 5, 9, i64::MIN + 1, END_OF_TIME] {
            for lookback in [0, 2, 5, i64::MAX] {
                let visibility = window(seed_time, lookback);
                for (start, end) in (0..=times.len()).flat_map(|end| (0..=end).map(move |start| (start, end))) {
                    let list = &times[start..end];
                    let expected: Vec<usize> = (0..list.len())
                        .filter(|&at| visibility.row(list[at]) && !visibility.is_too_old(list[at]))
                        .collect();
                    let late = list.partition_point(|&time| visibility.row(time)) as u32;
                    let visible = visibility.visible(late, |at| list[at as usize]);
                    let found: Vec<usize> = (0..visible.len as u32).map(|n| visible.position(n) as usize).collect();
                    assert_eq!(found, expected, "seed {seed_time}, window {lookback}, {list:?}");
                }
            }
        }
        assert!(window(10, 3).row(6), "parents are of any age");
        assert!(window(10, 3).is_too_old(6) && !window(10, 3).is_too_old(7) && !window(10, 3).is_too_old(11));
        assert!(window(10, 5).label(Label { time: 5, split: 0 }, Some(1)));
        assert!(!window(10, 5).label(Label { time: 4, split: 0 }, Some(1)));
        assert_eq!(window(10, 5).labels(&[1, 4, 5, 9, 10], Some(1)), Visible::range(2, 4));
        assert!(!window(END_OF_TIME, 5).is_too_old(0), "the end of time has no window");
    }

    #[test]
    fn labels_wait_for_their_window_and_split() {
        let visibility = view(100, 1, false, None);
        let label = |time, split| Label { time, split };
        assert!(visibility.label(label(90, 0), Some(10)) && visibility.label(label(90, 1), Some(10)));
        assert!(!visibility.label(label(91, 0), Some(10)));
        assert!(!visibility.label(label(90, 2), Some(10)));
        assert!(!visibility.label(label(90, 0), None));
        assert!(!visibility.label(label(i64::MAX - 5, 0), Some(10)), "an overflowing window never closes");
        assert!(!visibility.label(label(END_OF_TIME, 0), Some(0)));
        assert!(!view(100, 1, true, None).label(label(90, 0), Some(10)));
        assert!(!view(100, 1, false, Some(99)).label(label(90, 0), Some(10)));
        let end = view(END_OF_TIME, 2, false, None);
        assert!(end.label(label(END_OF_TIME, 0), None) && !end.label(label(END_OF_TIME, 1), None));
        let times = [1, 80, 90, 90, 91, i64::MAX - 1];
        assert_eq!(visibility.labels(&times, Some(10)), Visible::range(0, 4));
        assert_eq!(visibility.labels(&times, None).len, 0);
        assert_eq!(end.labels(&times, None).len, times.len());
    }

    #[test]
    fn ages_are_days_and_never_negative() {
        let visibility = view(86_400_000_000, 0, false, None);
        assert_eq!(visibility.age_days(0), Some(1.0));
        assert_eq!(visibility.age_days(2 * 86_400_000_000), Some(0.0));
        assert_eq!(visibility.age_days(ALWAYS_VISIBLE), None);
        assert_eq!(view(END_OF_TIME, 0, false, None).age_days(0), None);
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
