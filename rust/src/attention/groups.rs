//! Who looks at whom in one context, as groups: some queries, and the keys that all of them look at.

use std::ops::Range;

use super::Kind;

/// The ids of one context; fields as in `Inputs`.
#[derive(Debug)]
pub(super) struct Ids<'a> {
    pub(super) kind: Kind,
    pub(super) lookback: f32,
    /// Foreign keys that have a bias.
    pub(super) num_keys: usize,
    pub(super) asking: &'a [i32],
    pub(super) row: &'a [i32],
    pub(super) column: &'a [i32],
    pub(super) age: &'a [f32],
    pub(super) parents: &'a [i32],
    pub(super) parent_keys: &'a [i32],
    pub(super) num_parents: usize,
}

/// Queries that look at the same keys.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Of `Groups::queries`.
    pub(super) queries: Range<usize>,
    /// Of `Groups::keys`.
    pub(super) keys: Range<usize>,
    /// Of `Groups::links`.
    pub(super) links: Range<usize>,
}

/// All groups of a context. A query is in at most one of them; one that looks at nothing is in none.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) all: Vec<Group>,
    /// Positions along Q.
    pub(super) queries: Vec<u32>,
    /// Positions along S; no position twice in a group.
    pub(super) keys: Vec<u32>,
    /// Place in the group's keys, and a foreign key whose bias is added there.
    pub(super) links: Vec<(u32, u32)>,
}

/// Positions by id; those of a negative id are left out.
struct Buckets {
    starts: Vec<u32>,
    members: Vec<u32>,
}

impl Buckets {
    fn new(ids: impl Iterator<Item = i32> + Clone) -> Self {
        let num_ids = ids.clone().max().map_or(0, |id| usize::try_from(id + 1).unwrap_or(0));
        let mut starts = vec![0_u32; num_ids + 1];
        for id in ids.clone().flat_map(usize::try_from) {
            starts[id + 1] += 1;
        }
        for id in 0..num_ids {
            starts[id + 1] += starts[id];
        }
        let mut next = starts.clone();
        let mut members = vec![0; starts[num_ids] as usize];
        for (position, id) in ids.enumerate() {
            if let Ok(id) = usize::try_from(id) {
                members[next[id] as usize] = position as u32;
                next[id] += 1;
            }
        }
        Self { starts, members }
    }

    /// Largest id and one more.
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Positions in ascending order.
    fn of(&self, id: usize) -> &[u32] {
        if id >= self.len() {
            return &[];
        }
        &self.members[self.starts[id] as usize..self.starts[id + 1] as usize]
    }
}

impl Ids<'_> {
    /// The groups of the kind.
    pub(super) fn groups(&self) -> Groups {
        let mut groups = Groups::default();
        match self.kind {
            Kind::Full => {
                let cells = (0..self.row.len() as u32).filter(|&cell| self.row[cell as usize] >= 0);
                groups.keys.extend(cells);
                groups.close(
                    self.asking.iter().zip(0..).filter(|(cell, _)| self.row[**cell as usize] >= 0).map(|(_, idx)| idx),
                );
            }
            Kind::Column => {
                let of_cell = |cell: usize| if self.row[cell] < 0 { -1 } else { self.column[cell] };
                let cells = Buckets::new((0..self.row.len()).map(of_cell));
                let queries = Buckets::new(self.asking.iter().map(|&cell| of_cell(cell as usize)));
                for column in 0..queries.len() {
                    groups.keys.extend(cells.of(column));
                    groups.close(queries.of(column).iter().copied());
                }
            }
            Kind::Feature | Kind::Neighbor | Kind::Temporal => self.by_rows(&mut groups),
        }
        groups
    }

    /// Groups of the kinds in which the cells of a row look at the same keys.
    fn by_rows(&self, groups: &mut Groups) {
        let cells = Buckets::new(self.row.iter().copied());
        let queries = Buckets::new(self.asking.iter().map(|&cell| self.row[cell as usize]));
        let children = (self.kind == Kind::Neighbor).then(|| self.children(&cells));
        for row in 0..queries.len() {
            if queries.of(row).is_empty() {
                continue;
            }
            match self.kind {
                Kind::Feature => self.look_up(row, &cells, groups),
                Kind::Temporal => self.look_back(row, &cells, groups),
                _ => self.look_down(row, &cells, children.as_ref(), groups),
            }
            groups.close(queries.of(row).iter().copied());
        }
    }

    /// Parents of a row with their foreign keys; a row that points nowhere, or has no cell, has none.
    fn links(&self, row: usize, cells: &Buckets) -> impl Iterator<Item = (usize, i32)> {
        let first = cells.of(row).first().map_or(0..0, |&cell| {
            let start = cell as usize * self.num_parents;
            start..start + self.num_parents
        });
        let links = self.parents[first.clone()].iter().zip(&self.parent_keys[first]);
        links.filter_map(|(&parent, &key)| Some((usize::try_from(parent).ok()?, key)))
    }

    /// Feature attention: the row's own cells, and those of its parents.
    fn look_up(&self, row: usize, cells: &Buckets, groups: &mut Groups) {
        let first = groups.first_key();
        let mut found: Vec<(usize, usize)> = vec![(row, 0)];
        groups.keys.extend(cells.of(row));
        for (parent, key) in self.links(row, cells) {
            let place = found.iter().find(|(row, _)| *row == parent).map(|(_, place)| *place);
            let place = place.unwrap_or_else(|| {
                let place = groups.keys.len() - first;
                found.push((parent, place));
                groups.keys.extend(cells.of(parent));
                place
            });
            self.add_links(place, cells.of(parent).len(), key, groups);
        }
    }

    /// Neighbor attention: the cells of the row's children.
    fn look_down(&self, row: usize, cells: &Buckets, children: Option<&Buckets>, groups: &mut Groups) {
        let first = groups.first_key();
        let mut last = None;
        for &child in children.map_or(&[][..], |children| children.of(row)) {
            let child = child as usize / self.num_parents;
            if last == Some(child) {
                continue;
            }
            last = Some(child);
            let place = groups.keys.len() - first;
            groups.keys.extend(cells.of(child));
            for (_, key) in self.links(child, cells).filter(|&(parent, _)| parent == row) {
                self.add_links(place, cells.of(child).len(), key, groups);
            }
        }
    }

    /// Per row the links that lead to it; a link's position is its child times P and its slot.
    fn children(&self, cells: &Buckets) -> Buckets {
        let parents = (0..cells.len()).flat_map(|row| {
            let first = cells.of(row).first().map(|&cell| cell as usize * self.num_parents);
            (0..self.num_parents).map(move |slot| first.map_or(-1, |first| self.parents[first + slot]))
        });
        Buckets::new(parents)
    }

    /// Temporal attention: the row's own cells, and those of rows that are not later.
    fn look_back(&self, row: usize, cells: &Buckets, groups: &mut Groups) {
        let age = |row: usize| cells.of(row).first().map(|&cell| self.age[cell as usize]);
        let own = age(row).unwrap_or(f32::INFINITY);
        for other in 0..cells.len() {
            let is_earlier =
                age(other).is_some_and(|age| age < f32::INFINITY && age >= own && age - own <= self.lookback);
            if other == row || is_earlier {
                groups.keys.extend(cells.of(other));
            }
        }
    }

    fn add_links(&self, place: usize, count: usize, key: i32, groups: &mut Groups) {
        if let Some(key) = usize::try_from(key).ok().filter(|&key| key < self.num_keys) {
            groups.links.extend((place..place + count).map(|place| (place as u32, key as u32)));
        }
    }
}

impl Groups {
    /// Where the keys of the group begin that is being filled.
    fn first_key(&self) -> usize {
        self.all.last().map_or(0, |group| group.keys.end)
    }

    /// Ends a group, whose keys and links were added; without queries or keys there is none.
    fn close(&mut self, queries: impl Iterator<Item = u32>) {
        let (first_key, first_query) = (self.first_key(), self.queries.len());
        let first_link = self.all.last().map_or(0, |group| group.links.end);
        if self.keys.len() > first_key {
            self.queries.extend(queries);
        }
        if self.queries.len() == first_query {
            self.keys.truncate(first_key);
            self.links.truncate(first_link);
            return;
        }
        self.all.push(Group {
            queries: first_query..self.queries.len(),
            keys: first_key..self.keys.len(),
            links: first_link..self.links.len(),
        });
    }
}
