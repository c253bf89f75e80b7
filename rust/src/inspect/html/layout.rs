//! Where the boxes of a schema go: layers from tables that point (left) to tables that are pointed to (right), few
//! crossings, and lanes between the boxes for links that pass a layer.
//!
//! Source: Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures" (1981).
//! Differs in that a layer has a greatest height, that links to one parent share their lanes, and in that positions
//! follow from isotonic regression.

use std::collections::HashMap;

/// Space between two boxes of a layer, between a lane and its neighbours, and between two layers.
const BOX_GAP: f64 = 22.0;
const LANE_GAP: f64 = 9.0;
const LAYER_GAP: f64 = 84.0;
/// Margin around the whole drawing; loops of the last layer reach into it.
const MARGIN: f64 = 44.0;
/// Width over height that the drawing aims at.
const ASPECT: f64 = 1.5;
const SWEEPS: usize = 12;

/// A box to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A link from a line of one box to another box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The height of the line within its box.
    pub(super) from_y: f64,
}

/// The drawing.
#[derive(Debug)]
pub(super) struct Layout {
    /// Left upper corners of the boxes.
    pub(super) corners: Vec<(f64, f64)>,
    /// Per link the points it passes, in order: curves between, straight through the lanes.
    pub(super) paths: Vec<Vec<(f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A box, or a lane through a layer.
#[derive(Clone, Debug)]
struct Item {
    size: Size,
    layer: usize,
    y: f64,
    /// Items of the layers beside, each with the heights where the link leaves here and arrives there.
    neighbors: Vec<(usize, f64, f64)>,
}

/// Places the boxes.
pub(super) fn layout(sizes: &[Size], links: &[Link]) -> Layout {
    let is_linked =
        |node: usize| links.iter().any(|link| link.from != link.to && (link.from == node || link.to == node));
    let linked: Vec<bool> = (0..sizes.len()).map(is_linked).collect();
    let layers_of = assign_layers(sizes, links, &linked);
    let mut items: Vec<Item> = sizes
        .iter()
        .zip(&layers_of)
        .map(|(&size, &layer)| Item { size, layer, y: 0.0, neighbors: Vec::new() })
        .collect();
    let chains = add_lanes(&mut items, links);
    let num_layers = layers_of.iter().max().map_or(0, |&layer| layer + 1);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); num_layers];
    for (idx, item) in items.iter().enumerate() {
        if idx >= sizes.len() || linked[idx] {
            layers[item.layer].push(idx);
        }
    }
    order(&mut layers, &items);
    place(&layers, &mut items);
    finish(sizes, links, &linked, &items, &layers, &chains)
}

/// The layer of every box: parents below their children, no layer much higher than the drawing should be.
fn assign_layers(sizes: &[Size], links: &[Link], linked: &[bool]) -> Vec<usize> {
    let parents_first = without_cycles(sizes.len(), links);
    let area: f64 = sizes.iter().map(|size| (size.height + BOX_GAP) * (size.width + LAYER_GAP)).sum();
    let greatest = (area / ASPECT).sqrt().max(420.0);
    let mut heights: Vec<f64> = Vec::new();
    let mut layers = vec![0; sizes.len()];
    let mut is_placed = vec![false; sizes.len()];
    for node in parents_first {
        if !linked[node] {
            continue;
        }
        let parents = links.iter().filter(|link| link.from == node && link.to != node && is_placed[link.to]);
        let mut layer = parents.map(|link| layers[link.to] + 1).max().unwrap_or(0);
        let height = sizes[node].height + BOX_GAP;
        while heights.get(layer).is_some_and(|&used| used > 0.0 && used + height > greatest) {
            layer += 1;
        }
        heights.resize(heights.len().max(layer + 1), 0.0);
        heights[layer] += height;
        layers[node] = layer;
        is_placed[node] = true;
    }
    layers
}

/// Boxes so that parents come before their children, but for the links that would close a cycle.
fn without_cycles(num_nodes: usize, links: &[Link]) -> Vec<usize> {
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); num_nodes];
    for link in links.iter().filter(|link| link.from != link.to) {
        parents[link.from].push(link.to);
    }
    let (mut order, mut is_seen) = (Vec::new(), vec![false; num_nodes]);
    for start in 0..num_nodes {
        let mut stack = vec![(start, 0)];
        while let Some((node, next)) = stack.pop() {
            if next == 0 && std::mem::replace(&mut is_seen[node], true) {
                continue;
            }
            if let Some(&parent) = parents[node].get(next) {
                stack.push((node, next + 1));
                if !is_seen[parent] {
                    stack.push((parent, 0));
                }
            } else {
                order.push(node);
            }
        }
    }
    order
}

/// Adds a lane to every layer a link passes and joins what follows each other; answers the lanes of each link, from
/// its child on. First keys to the same parent share lanes; a second key of the same child has its own.
fn add_lanes(items: &mut Vec<Item>, links: &[Link]) -> Vec<Vec<usize>> {
    let mut shared: HashMap<(usize, usize, usize, bool), usize> = HashMap::new();
    let mut keys_of: HashMap<(usize, usize), usize> = HashMap::new();
    let mut chains = Vec::new();
    for link in links {
        let rank = keys_of.entry((link.from, link.to)).or_default();
        *rank += 1;
        let (from, to) = (items[link.from].layer, items[link.to].layer);
        let mut chain = Vec::new();
        if link.from != link.to {
            let is_backward = from <= to;
            let passed: Vec<usize> =
                if is_backward { (from + 1..to).collect() } else { (to + 1..from).rev().collect() };
            for layer in passed {
                let lane = *shared.entry((link.to, *rank, layer, is_backward)).or_insert_with(|| {
                    items.push(Item { size: Size { width: 0.0, height: 0.0 }, layer, y: 0.0, neighbors: Vec::new() });
                    items.len() - 1
                });
                chain.push(lane);
            }
            let mut at = (link.from, link.from_y);
            let middle = items[link.to].size.height / 2.0;
            for next in chain.iter().map(|&lane| (lane, 0.0)).chain([(link.to, middle)]) {
                if !items[at.0].neighbors.iter().any(|&(item, here, _)| (item, here) == (next.0, at.1)) {
                    items[at.0].neighbors.push((next.0, at.1, next.1));
                    items[next.0].neighbors.push((at.0, next.1, at.1));
                }
                at = next;
            }
        }
        chains.push(chain);
    }
    chains
}

/// Reorders layers by the mean place of neighbours, forth and back, and keeps the order with the fewest crossings.
fn order(layers: &mut Vec<Vec<usize>>, items: &[Item]) {
    let mut place = vec![0.0; items.len()];
    let number = |layer: &[usize], place: &mut Vec<f64>| {
        let last = layer.len().max(2) as f64 - 1.0;
        for (idx, &item) in layer.iter().enumerate() {
            place[item] = idx as f64 / last;
        }
    };
    for layer in layers.iter() {
        number(layer, &mut place);
    }
    let (mut best, mut fewest) = (layers.clone(), crossings(layers, items));
    for sweep in 0..2 * SWEEPS {
        let count = layers.len();
        for step in 0..count {
            let layer = if sweep % 2 == 0 { step } else { count - 1 - step };
            let wanted = |&item: &usize| {
                let known = items[item].neighbors.iter().filter(|&&(other, _, _)| {
                    let beside = items[other].layer;
                    if sweep % 2 == 0 { beside < layer } else { beside > layer }
                });
                let known: Vec<f64> = known.map(|&(other, _, y)| place[other] + y * 1e-6).collect();
                if known.is_empty() { place[item] } else { known.iter().sum::<f64>() / known.len() as f64 }
            };
            let mut keyed: Vec<(f64, usize)> = layers[layer].iter().map(|item| (wanted(item), *item)).collect();
            keyed.sort_by(|left, right| left.0.total_cmp(&right.0));
            layers[layer] = keyed.into_iter().map(|(_, item)| item).collect();
            number(&layers[layer], &mut place);
        }
        let found = crossings(layers, items);
        if found < fewest {
            (best, fewest) = (layers.clone(), found);
        }
    }
    *layers = best;
}

fn crossings(layers: &[Vec<usize>], items: &[Item]) -> usize {
    let mut place = vec![0; items.len()];
    for (idx, &item) in layers.iter().flat_map(|layer| layer.iter().enumerate()) {
        place[item] = idx;
    }
    let mut crossings = 0;
    for (idx, layer) in layers.iter().enumerate() {
        let links: Vec<(usize, usize)> = layer
            .iter()
            .flat_map(|&item| items[item].neighbors.iter().map(move |&(other, _, _)| (item, other)))
            .filter(|&(_, other)| items[other].layer == idx + 1)
            .map(|(item, other)| (place[item], place[other]))
            .collect();
        for (number, left) in links.iter().enumerate() {
            crossings += links[..number]
                .iter()
                .filter(|right| (left.0 < right.0 && left.1 > right.1) || (left.0 > right.0 && left.1 < right.1))
                .count();
        }
    }
    crossings
}

/// Heights: every box as near to its neighbours as those above and below it allow.
fn place(layers: &[Vec<usize>], items: &mut [Item]) {
    for layer in layers {
        settle(layer, items, &vec![0.0; layer.len()]);
    }
    for sweep in 0..2 * SWEEPS {
        for step in 0..layers.len() {
            let layer = &layers[if sweep % 2 == 0 { step } else { layers.len() - 1 - step }];
            let wanted = |&item: &usize| {
                let Item { y, neighbors, .. } = &items[item];
                let ys = neighbors.iter().map(|&(other, here, there)| items[other].y + there - here);
                if neighbors.is_empty() { *y } else { ys.sum::<f64>() / neighbors.len() as f64 }
            };
            let wanted: Vec<f64> = layer.iter().map(wanted).collect();
            settle(layer, items, &wanted);
        }
    }
    let top = layers.iter().flatten().map(|&item| items[item].y).fold(f64::INFINITY, f64::min);
    for &item in layers.iter().flatten() {
        items[item].y += MARGIN - top;
    }
}

/// The heights nearest to the wanted ones (least squares) that keep order and distance: pooled adjacent violators.
fn settle(layer: &[usize], items: &mut [Item], wanted: &[f64]) {
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    for (idx, &item) in layer.iter().enumerate() {
        offsets.push(offset);
        let is_lane = |at: usize| layer.get(at).is_some_and(|&item| items[item].size.width == 0.0);
        let gap = if is_lane(idx) || is_lane(idx + 1) { LANE_GAP } else { BOX_GAP };
        offset += items[item].size.height + gap;
    }
    // pools of (sum, count)
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        pools.push((wanted - offset, 1));
        while let [.., (sum, count), (next_sum, next_count)] = pools[..] {
            if sum / count as f64 <= next_sum / next_count as f64 {
                break;
            }
            pools.truncate(pools.len() - 2);
            pools.push((sum + next_sum, count + next_count));
        }
    }
    let levels = pools.iter().flat_map(|&(sum, count)| std::iter::repeat_n(sum / count as f64, count));
    for ((&item, offset), level) in layer.iter().zip(&offsets).zip(levels) {
        items[item].y = level + offset;
    }
}

fn finish(
    sizes: &[Size],
    links: &[Link],
    linked: &[bool],
    items: &[Item],
    layers: &[Vec<usize>],
    chains: &[Vec<usize>],
) -> Layout {
    let widths: Vec<f64> =
        layers.iter().map(|layer| layer.iter().map(|&item| items[item].size.width).fold(0.0, f64::max)).collect();
    let mut lefts = vec![0.0; layers.len()];
    let mut x = MARGIN;
    for (idx, width) in widths.iter().enumerate().rev() {
        lefts[idx] = x;
        let lanes = layers[idx].iter().map(|&item| items[item].neighbors.len()).sum::<usize>() as f64;
        x += width + LAYER_GAP + (2.0 * lanes).min(90.0);
    }
    let mut corners: Vec<(f64, f64)> =
        (0..sizes.len()).map(|node| (lefts.get(items[node].layer).copied().unwrap_or(MARGIN), items[node].y)).collect();
    let bottom = |&item: &usize| items[item].y + items[item].size.height;
    let below = layers.iter().flatten().map(bottom).fold(0.0, f64::max);
    let right = if layers.iter().all(Vec::is_empty) { MARGIN } else { x - LAYER_GAP };
    let (width, height) = shelve(sizes, linked, &mut corners, right.max(900.0), below);
    let paths = route(links, items, &lefts, &widths, chains, &corners);
    Layout { corners, paths, width: width.max(right) + MARGIN, height: height + MARGIN }
}

/// Puts boxes without links on shelves below the rest; answers how far the drawing reaches.
fn shelve(sizes: &[Size], linked: &[bool], corners: &mut [(f64, f64)], width: f64, below: f64) -> (f64, f64) {
    let (mut x, mut y, mut shelf, mut reach) = (MARGIN, below + BOX_GAP * 2.0, 0.0f64, 0.0f64);
    let mut lowest = below;
    for (node, size) in sizes.iter().enumerate().filter(|&(node, _)| !linked[node]) {
        if x > MARGIN && x + size.width > width {
            (x, y, shelf) = (MARGIN, y + shelf + BOX_GAP, 0.0);
        }
        corners[node] = (x, y);
        x += size.width + MARGIN;
        shelf = shelf.max(size.height);
        reach = reach.max(x - MARGIN);
        lowest = lowest.max(y + shelf);
    }
    (reach, lowest)
}

/// The points of every link. Links arrive at different heights of their parent, in the order they come from.
fn route(
    links: &[Link],
    items: &[Item],
    lefts: &[f64],
    widths: &[f64],
    chains: &[Vec<usize>],
    corners: &[(f64, f64)],
) -> Vec<Vec<(f64, f64)>> {
    let origin = |link: usize| match chains[link].last() {
        Some(&lane) => (items[lane].y, lane),
        None => (corners[links[link].from].1 + links[link].from_y, usize::MAX - link),
    };
    let is_backward = |link: &Link| items[link.from].layer <= items[link.to].layer;
    let arrival = |link: usize| {
        let same = |other: &usize| {
            let (this, other) = (&links[link], &links[*other]);
            other.to == this.to && other.from != other.to && is_backward(other) == is_backward(this)
        };
        let mut origins: Vec<(f64, usize)> = (0..links.len()).filter(same).map(origin).collect();
        origins.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
        origins.dedup_by_key(|origin| origin.1);
        let rank = origins.iter().position(|known| known.1 == origin(link).1).unwrap_or(0);
        let height = items[links[link].to].size.height;
        let step = ((height - 12.0) / origins.len() as f64).min(9.0);
        height / 2.0 + (rank as f64 - (origins.len() as f64 - 1.0) / 2.0) * step
    };
    links
        .iter()
        .enumerate()
        .map(|(idx, link)| {
            let (from, to) = (corners[link.from], corners[link.to]);
            let (from_width, to_width) = (items[link.from].size.width, items[link.to].size.width);
            let start_y = from.1 + link.from_y;
            if link.from == link.to {
                return vec![(from.0 + from_width, start_y), (from.0 + from_width, from.1 + 11.0)];
            }
            let leftward = is_backward(link);
            let mut points = vec![(if leftward { from.0 } else { from.0 + from_width }, start_y)];
            for &lane in &chains[idx] {
                let (left, y) = (lefts[items[lane].layer], items[lane].y);
                let ends = [(left, y), (left + widths[items[lane].layer], y)];
                points.extend(if leftward { [ends[1], ends[0]] } else { ends });
            }
            points.push((if leftward { to.0 + to_width } else { to.0 }, to.1 + arrival(idx)));
            points
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(count: usize) -> Vec<Size> {
        (0..count).map(|idx| Size { width: 100.0 + idx as f64, height: 40.0 + (idx % 5) as f64 * 15.0 }).collect()
    }

    fn link(from: usize, to: usize, line: usize) -> Link {
        Link { from, to, from_y: 30.0 + 5.0 * line as f64 }
    }

    fn assert_apart(sizes: &[Size], layout: &Layout) {
        for (left, &(x, y)) in layout.corners.iter().enumerate() {
            assert!(x >= 0.0 && y >= 0.0 && x + sizes[left].width <= layout.width);
            assert!(y + sizes[left].height <= layout.height);
            for (right, &(other_x, other_y)) in layout.corners[..left].iter().enumerate() {
                let is_beside = x + sizes[left].width < other_x || other_x + sizes[right].width < x;
                let is_above = y + sizes[left].height < other_y || other_y + sizes[right].height < y;
                assert!(is_beside || is_above, "boxes {left} and {right} overlap");
            }
        }
    }

    #[test]
    fn boxes_never_overlap() {
        let sizes = boxes(40);
        let links: Vec<Link> = (0..90).map(|idx| link(idx * 7 % 40, idx * idx % 40, idx % 3)).collect();
        let layout = layout(&sizes, &links);
        assert_eq!(layout.paths.len(), 90);
        assert_apart(&sizes, &layout);
    }

    #[test]
    fn children_stand_left_of_their_parents() {
        let sizes = boxes(4);
        let layout = layout(&sizes, &[link(0, 1, 0), link(1, 2, 0), link(0, 2, 1)]);
        let x: Vec<f64> = layout.corners.iter().map(|corner| corner.0).collect();
        assert!(x[0] < x[1] && x[1] < x[2]);
        // the one that has no link stands below
        assert!(layout.corners[3].1 > layout.corners[..3].iter().map(|corner| corner.1).fold(0.0, f64::max));
        assert_apart(&sizes, &layout);
    }

    #[test]
    fn two_keys_cycles_and_loops_are_drawn_apart() {
        let sizes = boxes(3);
        let links = [link(0, 1, 0), link(0, 1, 1), link(1, 0, 0), link(2, 2, 0), link(0, 2, 2), link(2, 0, 1)];
        let layout = layout(&sizes, &links);
        for (idx, path) in layout.paths.iter().enumerate() {
            assert!(
                layout.paths[..idx].iter().all(|other| other.first() != path.first() && other.last() != path.last())
            );
        }
        assert_apart(&sizes, &layout);
    }

    #[test]
    fn nothing_is_a_drawing_too() {
        let layout = layout(&[], &[]);
        assert!(layout.width > 0.0 && layout.height > 0.0 && layout.paths.is_empty());
    }
}
