//! Small charts as inline SVG; every bar tells its numbers when pointed at.

use std::fmt::Write;

use super::{escape, shorten};
use crate::inspect::number::{grouped, percent, plain, size};
use crate::inspect::{Edges, Histogram, Scale};

const HEIGHT: f64 = 34.0;
const WIDTH: f64 = 208.0;

/// A histogram with its ends below.
pub(super) fn histogram(histogram: &Histogram) -> String {
    let edges: Vec<String> = match &histogram.edges {
        Edges::Numbers(edges) => edges.iter().map(|&edge| plain(edge)).collect(),
        Edges::Times(edges) => edges.clone(),
    };
    let bins = histogram.counts.iter().zip(edges.windows(2));
    let bins: Vec<(String, u64)> = bins.map(|(&count, ends)| (format!("{} to {}", ends[0], ends[1]), count)).collect();
    let ends = edges.first().zip(edges.last()).map_or_else(String::new, |(first, last)| {
        let scale = if histogram.scale == Scale::Log { "log" } else { "" };
        let day =
            |edge: &str| escape(edge.get(..10).filter(|_| matches!(histogram.edges, Edges::Times(_))).unwrap_or(edge));
        format!("<div class=\"ends\"><span>{}</span><span>{scale}</span><span>{}</span></div>", day(first), day(last))
    });
    format!("<div style=\"width:{:.0}px\">{}{ends}</div>", width(bins.len()).max(90.0), columns(&bins, "cells"))
}

/// Width of a bar of a chart of `bins` bars, space included, and of the whole chart.
fn step(bins: usize) -> f64 {
    (WIDTH / bins.max(1) as f64).min(16.0)
}

fn width(bins: usize) -> f64 {
    step(bins) * bins as f64
}

/// Upright bars with a name each.
pub(super) fn columns(bins: &[(String, u64)], what: &str) -> String {
    let most = bins.iter().map(|bin| bin.1).max().unwrap_or(0).max(1) as f64;
    let total = bins.iter().map(|bin| bin.1).sum();
    let (step, width) = (step(bins.len()), width(bins.len()));
    let mut svg =
        format!("<svg class=\"bars\" viewBox=\"0 0 {width:.0} {HEIGHT}\" width=\"{width:.0}\" height=\"{HEIGHT}\">");
    for (idx, (name, count)) in bins.iter().enumerate() {
        let height = if *count == 0 { 0.0 } else { (*count as f64 / most * (HEIGHT - 1.0)).max(1.0) };
        let _ = write!(
            svg,
            "<g><rect class=\"ground\" x=\"{x:.1}\" y=\"0\" width=\"{step:.1}\" height=\"{HEIGHT}\"/>\
             <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>\
             <title>{}: {} {what} ({})</title></g>",
            HEIGHT - height,
            step - 1.0,
            escape(name),
            grouped(*count),
            percent(*count, total),
            x = step * idx as f64,
        );
    }
    svg + "</svg>"
}

/// Lying bars with their names beside them.
pub(super) fn bars(values: &[(String, u64)], total: u64) -> String {
    let most = values.iter().map(|value| value.1).max().unwrap_or(0).max(1) as f64;
    let mut html = String::from("<div class=\"values\">");
    for (name, count) in values {
        let _ = write!(
            html,
            "<div title=\"{}: {} cells\"><i style=\"width:{:.1}%\"></i><span>{}</span><b>{}</b></div>",
            escape(name),
            grouped(*count),
            *count as f64 / most * 100.0,
            escape(&shorten(name, 40)),
            percent(*count, total)
        );
    }
    html + "</div>"
}

/// One share of a whole.
pub(super) fn share(share: f64) -> String {
    format!("<div class=\"share\"><i style=\"width:{:.1}%\"></i></div>", share * 100.0)
}

/// What a whole is made of.
pub(super) fn parts(parts: &[(String, u64)], total: u64) -> String {
    let mut html = String::from("<div class=\"parts\">");
    for (idx, (name, bytes)) in parts.iter().enumerate() {
        let share = *bytes as f64 / total.max(1) as f64 * 100.0;
        let label = if share > 9.0 { name.as_str() } else { "" };
        let _ = write!(
            html,
            "<span class=\"p{}\" style=\"width:{share:.2}%\" title=\"{name}: {}\">{label}</span>",
            idx % 6,
            size(*bytes)
        );
    }
    html + "</div>\n"
}
