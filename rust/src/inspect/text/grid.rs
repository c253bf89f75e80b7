//! Aligned columns and small drawings out of characters.

use std::fmt::Write;

/// Longest text of one place in a grid.
const MAX_WIDTH: usize = 60;

/// A heading, names of columns, and rows; nothing when there are no rows.
pub(super) struct Grid {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(super) fn new(head: &[&'static str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        Self { head: head.to_vec(), rows: rows.into_iter().collect() }
    }

    /// Writes the grid under a heading, unless it is empty.
    pub(super) fn section(&self, text: &mut String, heading: &str) {
        if self.rows.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{}", clean(heading));
        let head: Vec<String> = self.head.iter().map(|&name| name.to_owned()).collect();
        let is_named = head.iter().any(|name| !name.is_empty());
        let lines: Vec<Vec<String>> = is_named
            .then_some(&head)
            .into_iter()
            .chain(&self.rows)
            .map(|line| line.iter().map(|place| clip(place)).collect())
            .collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let right: Vec<bool> =
            (0..head.len()).map(|column| is_amounts(&lines[usize::from(is_named)..], column)).collect();
        for line in &lines {
            let mut rendered = String::from(" ");
            for (column, place) in line.iter().enumerate() {
                let gap = " ".repeat(widths[column] - place.chars().count());
                let (before, after) = if right[column] { (gap.as_str(), "") } else { ("", gap.as_str()) };
                let _ = write!(rendered, " {before}{place}{after} ");
            }
            let _ = writeln!(text, "{}", rendered.trim_end());
        }
    }
}

fn is_amounts(lines: &[Vec<String>], column: usize) -> bool {
    let mut places = lines.iter().map(|line| line[column].as_str()).filter(|place| *place != "-").peekable();
    let is_amount = |place: &str| {
        let (number, unit) = place.split_once(' ').unwrap_or((place, ""));
        number.trim_start_matches(['<', '-']).starts_with(|first: char| first.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '<' | '-'))
            && (unit.is_empty() || unit == "%" || unit.ends_with('B'))
    };
    places.peek().is_some() && places.all(is_amount)
}

/// One line, of bounded length, without control characters.
pub(super) fn clip(place: &str) -> String {
    if place.chars().count() <= MAX_WIDTH {
        return clean(place);
    }
    let cut: String = place.chars().take(MAX_WIDTH - 3).collect();
    clean(&cut) + "..."
}

/// One line: without control characters and without those that turn the direction of writing.
pub(super) fn clean(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_odd(c) { ' ' } else { c }).collect()
}

/// A histogram in one line, a character per bin; a bin with anything in it is never blank.
pub(super) fn sparkline(counts: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().max().copied().unwrap_or(0).max(1) as f64;
    let level = |count: u64| if count == 0 { ' ' } else { LEVELS[(count as f64 / most * 7.0).round() as usize] };
    counts.iter().map(|&count| level(count)).collect()
}

/// A bar of at most `width` characters; something is never nothing.
pub(super) fn bar(part: u64, most: u64, width: usize) -> String {
    let eighths = (part as f64 / most.max(1) as f64 * (width * 8) as f64).round() as usize;
    let eighths = if part > 0 { eighths.max(1) } else { eighths };
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8 - 1]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_bounded_line() {
        assert_eq!(clip("a\nb"), "a b");
        assert_eq!(clip("\u{1b}[31mred\u{202e}"), " [31mred ");
        assert_eq!(clip(&"é".repeat(100)).chars().count(), MAX_WIDTH);
    }

    #[test]
    fn drawings_show_everything_that_is_there() {
        assert_eq!(sparkline(&[0, 1, 1000]), " ▁█");
        assert_eq!(sparkline(&[]), "");
        assert_eq!([bar(0, 10, 4), bar(1, 1000, 4), bar(5, 10, 4), bar(10, 10, 4)], ["", "▏", "██", "████"]);
    }
}
