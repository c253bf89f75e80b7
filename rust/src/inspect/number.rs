//! Numbers as people read them: thousands grouped, four digits, powers of 1024, and no digit a 32-bit z-score cannot
//! vouch for.

use crate::manifest::ColumnStatistics;

/// A number decoded from its z-score, and how far the user's number may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decoded {
    pub(super) value: f64,
    pub(super) error: f64,
}

impl Decoded {
    /// The number of a column behind a z-score, within the column's extremes.
    #[inline]
    pub(super) fn of(z: f32, statistics: &ColumnStatistics) -> Self {
        let (mean, std) = (statistics.mean.unwrap_or(0.0), statistics.std.unwrap_or(1.0));
        let distance = f64::from(z) * std;
        let (least, most) = (statistics.min.unwrap_or(f64::MIN), statistics.max.unwrap_or(f64::MAX));
        Self { value: (distance + mean).max(least).min(most), error: error(distance, mean) }
    }

    /// A label behind its z-score.
    pub(super) fn label(z: f32, mean: f64, std: f64) -> Self {
        let distance = f64::from(z) * std;
        Self { value: distance + mean, error: error(distance, mean) }
    }

    /// The shortest decimal that the z-score cannot tell from the user's number.
    pub(super) fn shortest(self) -> f64 {
        if self.value.abs() <= self.error {
            return 0.0;
        }
        (0..17)
            .filter_map(|digits| format!("{:.digits$e}", self.value).parse::<f64>().ok())
            .find(|rounded| (rounded - self.value).abs() <= self.error)
            .unwrap_or(self.value)
    }
}

/// Half a unit in the last place of the z-score, and the rounding of the sum.
#[inline]
fn error(distance: f64, mean: f64) -> f64 {
    const HALF_ULP: f64 = 0.5 * f32::EPSILON as f64 * 1.01;
    distance.abs() * HALF_ULP + (mean.abs() + distance.abs()) * 4.0 * f64::EPSILON
}

/// An integer with its thousands grouped.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Four significant digits.
pub(super) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&magnitude) {
        let digits = if value == 0.0 { 0 } else { (3 - magnitude.log10().floor() as i32).max(0) as usize };
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.3e}")
    }
}

/// Every digit of a number, with an exponent where there would be many zeros.
pub(super) fn plain(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if (1e-5..1e15).contains(&value.abs()) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

/// A share of a whole in percent; `-` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let share = 100.0 * part as f64 / whole as f64;
    if part > 0 && share < 0.1 { "<0.1 %".into() } else { format!("{share:.1} %") }
}

/// Bytes in powers of 1024.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1234.567), "1235");
        assert_eq!(short(-0.5), "-0.5");
        assert_eq!(short(12.3456), "12.35");
        assert_eq!(short(1.5e9), "1.500e9");
        assert_eq!([plain(-0.0), plain(0.25), plain(2e-9), plain(1e300)], ["0", "0.25", "2e-9", "1e300"]);
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(3 << 20), "3.0 MiB");
        assert_eq!([percent(1, 3), percent(1, 5000), percent(0, 5), percent(0, 0)], ["33.3 %", "<0.1 %", "0.0 %", "-"]);
    }

    #[test]
    fn noise_of_the_z_score_is_not_shown() {
        let statistics = ColumnStatistics { mean: Some(0.1), std: Some(0.3), ..ColumnStatistics::default() };
        let zero = ((0.0 - 0.1) / 0.3) as f32;
        assert_eq!(plain(Decoded::of(zero, &statistics).shortest()), "0");
    }

    proptest! {
        #[test]
        fn a_number_of_six_digits_comes_back(value in -999_999i32..1_000_000, mean in -1e3f64..1e3, std in 1f64..1e3) {
            let value = f64::from(value) / 1000.0;
            let statistics = ColumnStatistics { mean: Some(mean), std: Some(std), ..ColumnStatistics::default() };
            let shown = Decoded::of(((value - mean) / std) as f32, &statistics).shortest();
            prop_assert!((shown - value).abs() <= 2.0 * error(value - mean, mean));
        }
    }
}
