//! Children of visited rows, drawn ahead of their visits, so that their memory is on its way.
//!
//! A visited row waits in a queue until its lists of children are opened, which is shortly before their turn; most rows
//! of a context are never asked. Lists take turns in a fixed order, so drawing early changes no draw. Implements
//! `documentation/sampling.md`, "Drawing a child".

use super::config::{SamplerConfig, Strategy};
use super::context::Asked;
use super::frontier::{Draws, Via, Visit};
use super::lead_in::send_for_labels;
use super::plan::Quotas;
use super::rng::Rng;
use super::temporal::Visible;
use crate::database::View;
use crate::ids::RowId;

/// Draws made ahead of their use: the place in the list is on its way from memory, then the row is, then its parents.
const EDGES_AHEAD: u32 = 8;
const ROWS_AHEAD: u32 = 8;
const PARENTS_AHEAD: u32 = 4;
/// Room for all of them, a power of two.
const RING: usize = 32;
/// Lists that are searched for the end of what is visible before their turn, and probes of them per draw.
const LISTS_AHEAD: usize = 6;
const PROBES_PER_DRAW: usize = 2;

/// A list of children that was opened.
#[derive(Clone, Copy, Debug)]
struct ChildList {
    /// The foreign key.
    key: u32,
    /// The table of the children.
    table: u32,
    /// Local number of the parent.
    from: u32,
    /// Links from the seed's row to the children.
    hop: u32,
    /// It is a history: a list of seeds.
    is_history: bool,
    /// How far a history is on its way from memory.
    stage: u8,
    /// Where the list starts; the entity's row until the place of a history was looked up.
    start: u32,
    /// Its length, invisible children included.
    len: u32,
    /// How many are visible, as far as it is known.
    search: Search,
}

/// A binary search for the end of the visible entries of a list, one probe at a time, so that the memory of a probe can
/// be on its way while something else is done.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Entries before this are visible.
    low: u32,
    /// Entries from this on are not.
    high: u32,
    probe: u32,
}

impl Search {
    /// A search in a list; the first probe is its last entry, which is the newest.
    #[inline]
    const fn new(len: u32) -> Self {
        Self { low: 0, high: len, probe: len.saturating_sub(1) }
    }

    /// A search that has found its end.
    #[inline]
    const fn ended(end: u32) -> Self {
        Self { low: end, high: end, probe: end }
    }

    /// The entry to look at next; `None` when the end is known.
    #[inline]
    fn probe(&self) -> Option<u32> {
        (self.low < self.high).then_some(self.probe)
    }

    /// Says whether the entry at the probe is visible.
    #[inline]
    fn answer(&mut self, is_visible: bool) {
        if is_visible {
            self.low = self.probe + 1;
        } else {
            self.high = self.probe;
        }
        self.probe = u32::midpoint(self.low, self.high);
    }
}

/// A child drawn ahead of its visit.
#[derive(Clone, Copy, Debug, Default)]
struct Drawn {
    /// Its list.
    list: u32,
    /// Position among the children of the foreign key, then the row found there.
    at: u32,
}

/// The list whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    list: u32,
    key: u32,
    start: u32,
    is_history: bool,
    visible: Visible,
    quota: usize,
}

/// The children of some visited rows, in the order in which they are found.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    view: &'a View<'a>,
    quotas: &'a Quotas,
    strategy: Strategy,
    max_hops: u32,
    /// Local numbers of visited rows, and how many of them have opened their lists.
    waiting: Vec<u32>,
    opened: usize,
    /// Lists opened, and how many of them had their turn.
    lists: Vec<ChildList>,
    turns: usize,
    turn: Turn,
    draws: Draws,
    rng: Rng,
    /// Draws on their way, at their number modulo the size; numbers of those handed out, and of those whose parents,
    /// whose row and whose place were sent for.
    ring: [Drawn; RING],
    handed_out: u32,
    ready: u32,
    resolved: u32,
    drawn: u32,
    /// Which of the lists ahead was probed last.
    probed: usize,
}

impl<'a> Children<'a> {
    /// Children of no row.
    pub fn new(view: &'a View<'a>, config: &SamplerConfig, quotas: &'a Quotas) -> Self {
        let visible = Visible { head: 0, skip: 0, len: 0 };
        Self {
            view,
            quotas,
            strategy: config.strategy,
            max_hops: config.max_hops.map_or(u32::MAX, |hops| u32::try_from(hops).unwrap_or(u32::MAX)),
            waiting: Vec::with_capacity(config.rows().min(1024)),
            opened: 0,
            lists: Vec::with_capacity(256),
            turns: 0,
            turn: Turn { list: 0, key: 0, start: 0, is_history: false, visible, quota: 0 },
            draws: Draws::new(),
            rng: Rng::default(),
            ring: [Drawn::default(); RING],
            handed_out: 0,
            ready: 0,
            resolved: 0,
            drawn: 0,
            probed: 0,
        }
    }

    /// Starts over with no row.
    pub fn clear(&mut self, rng: Rng) {
        self.waiting.clear();
        self.opened = 0;
        self.lists.clear();
        self.turns = 0;
        self.turn.quota = 0;
        self.rng = rng;
        (self.handed_out, self.ready, self.resolved, self.drawn) = (0, 0, 0, 0);
    }

    /// Appends the lists of a visited row of the database to the queue.
    #[inline]
    pub fn wait(&mut self, local: u32, visit: &Visit) {
        if visit.hop < self.max_hops {
            self.waiting.push(local);
        }
    }

    /// The next child; `None` when no list is left. `rows` are all rows found, by local number.
    #[inline]
    pub fn next(&mut self, asked: &Asked<'a>, rows: &[Visit]) -> Option<Visit> {
        let ahead = self.handed_out;
        while self.drawn < ahead + PARENTS_AHEAD + ROWS_AHEAD + EDGES_AHEAD && self.draw(asked, rows) {}
        while self.resolved < (ahead + PARENTS_AHEAD + ROWS_AHEAD).min(self.drawn) {
            self.resolve(asked);
        }
        while self.ready < (ahead + PARENTS_AHEAD).min(self.resolved) {
            self.send_for_parents(asked);
        }
        if ahead == self.ready {
            return None;
        }
        let Drawn { list, at } = self.ring[ahead as usize % RING];
        self.handed_out += 1;
        let &ChildList { key, table, from, hop, .. } = &self.lists[list as usize];
        Some(Visit { table, row: at, hop, from, via: Via::Child(key) })
    }

    /// Looks up the row of a draw and sends for it.
    #[inline]
    fn resolve(&mut self, asked: &Asked<'a>) {
        let drawn = &mut self.ring[self.resolved as usize % RING];
        let list = &self.lists[drawn.list as usize];
        if list.is_history {
            drawn.at = asked.seeds.indices[drawn.at as usize];
        } else {
            drawn.at = self.view.children[list.key as usize].indices.get(drawn.at as usize) as u32;
            self.view.tables[list.table as usize].prefetch(RowId(drawn.at));
        }
        self.resolved += 1;
    }

    /// Sends for the parents of a row that is there by now.
    #[inline]
    fn send_for_parents(&mut self, asked: &Asked<'a>) {
        let Drawn { list, at } = self.ring[self.ready as usize % RING];
        self.ready += 1;
        let list = &self.lists[list as usize];
        if list.is_history {
            return;
        }
        let plan = &asked.plan.tables[list.table as usize];
        if plan.parents.len() < 2 {
            return; // its only parent is the one whose child it is
        }
        let record = self.view.tables[list.table as usize].record(RowId(at));
        for link in &plan.parents {
            if link.key != list.key
                && let Some(parent) = record.parent(link.slot)
            {
                self.view.tables[link.table as usize].prefetch(RowId(parent));
            }
        }
    }

    /// Draws a child; false when no list is left.
    #[inline]
    fn draw(&mut self, asked: &Asked<'a>, rows: &[Visit]) -> bool {
        loop {
            if self.turn.quota == 0 || self.draws.remaining() == 0 {
                if !self.next_turn(asked, rows) {
                    return false;
                }
                continue;
            }
            let position = match self.strategy {
                Strategy::Uniform => self.draws.uniform(&mut self.rng),
                Strategy::Recent => self.draws.newest(),
            };
            let turn = &mut self.turn;
            let at = turn.start + turn.visible.position(position);
            if turn.is_history {
                if !asked.shows_label(asked.seeds.indices[at as usize] as usize) {
                    continue;
                }
            } else {
                self.view.children[turn.key as usize].indices.prefetch(at as usize);
            }
            turn.quota -= 1;
            self.ring[self.drawn as usize % RING] = Drawn { list: turn.list, at };
            self.drawn += 1;
            self.look_ahead(asked, rows);
            return true;
        }
    }

    /// Goes on with the searches of lists whose turn comes soon.
    #[inline]
    fn look_ahead(&mut self, asked: &Asked<'a>, rows: &[Visit]) {
        if self.lists.len() < self.turns + LISTS_AHEAD {
            self.open(asked, rows);
        }
        for _ in 0..PROBES_PER_DRAW {
            self.probed = if self.probed == 0 { LISTS_AHEAD - 1 } else { self.probed - 1 };
            if let Some(list) = self.lists.get_mut(self.turns + self.probed) {
                advance(self.view, asked, list);
            }
        }
    }

    /// Opens the lists of the waiting rows until enough wait for their turn.
    #[inline(never)]
    fn open(&mut self, asked: &Asked<'a>, rows: &[Visit]) {
        while self.lists.len() < self.turns + LISTS_AHEAD {
            let Some(&from) = self.waiting.get(self.opened) else { return };
            self.opened += 1;
            let Visit { table, row, hop, .. } = rows[from as usize];
            let list = |key, table, start, len| ChildList {
                key,
                table,
                from,
                hop: hop + 1,
                is_history: false,
                stage: 0,
                start,
                len,
                search: Search::new(len),
            };
            let plan = asked.plan;
            if plan.has_history && table == plan.anchor_table {
                self.lists.push(ChildList { is_history: true, ..list(plan.key, plan.table, row, 0) });
                asked.seeds.prefetch_entity(row);
            }
            let record = self.view.tables[table as usize].record(RowId(row));
            for link in &plan.tables[table as usize].children {
                let range = record.children(link.slot);
                if range.is_empty() {
                    continue;
                }
                let times = self.view.children[link.key as usize].times;
                let mut list = list(link.key, link.table, range.start as u32, range.len() as u32);
                if times.is_constant() {
                    let is_visible = asked.visibility.row(times.get(range.start));
                    list.search = Search::ended(if is_visible { list.len } else { 0 });
                } else {
                    times.prefetch(range.end - 1);
                }
                self.lists.push(list);
            }
        }
    }

    /// Starts the turn of the next list; false when none is left.
    #[inline(never)]
    fn next_turn(&mut self, asked: &Asked<'a>, rows: &[Visit]) -> bool {
        if self.turns == self.lists.len() {
            self.open(asked, rows);
        }
        let Some(list) = self.lists.get_mut(self.turns) else { return false };
        let visible = if list.is_history {
            find_history(asked, list);
            let range = list.start as usize..(list.start + list.len) as usize;
            asked.visibility.labels(&asked.seeds.index_times[range], asked.plan.horizon)
        } else {
            let times = self.view.children[list.key as usize].times;
            let start = list.start;
            let time = |at: u32| times.get((start + at) as usize);
            while let Some(probe) = list.search.probe() {
                list.search.answer(asked.visibility.row(time(probe)));
            }
            asked.visibility.visible(list.search.low, time)
        };
        self.turn = Turn {
            list: self.turns as u32,
            key: list.key,
            start: list.start,
            is_history: list.is_history,
            visible,
            quota: self.quotas.get(list.key, list.hop),
        };
        self.turns += 1;
        self.draws.start(visible.len as u32);
        true
    }
}

/// Looks at what was sent for of a list, and sends for what is needed next.
#[inline]
fn advance<'a>(view: &'a View<'a>, asked: &Asked<'a>, list: &mut ChildList) {
    if let Some(probe) = list.search.probe() {
        let times = view.children[list.key as usize].times;
        list.search.answer(asked.visibility.row(times.get((list.start + probe) as usize)));
        if let Some(probe) = list.search.probe() {
            times.prefetch((list.start + probe) as usize);
        }
    } else if list.is_history {
        advance_history(asked, list);
    }
}

#[cold]
fn advance_history(asked: &Asked<'_>, list: &mut ChildList) {
    match list.stage {
        0 => {
            find_history(asked, list);
            asked.seeds.prefetch_index(list.start as usize, list.len as usize);
        }
        1 => {
            list.stage = 2;
            send_for_labels(asked, list.start as usize, list.len as usize);
        }
        _ => {}
    }
}

/// Looks up where the seeds of an entity lie.
fn find_history(asked: &Asked<'_>, list: &mut ChildList) {
    if list.stage == 0 {
        let bounds = &asked.seeds.indptr[list.start as usize..list.start as usize + 2];
        (list.start, list.len, list.stage) = (bounds[0], bounds[1] - bounds[0], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_search_finds_the_end() {
        for len in 0..70 {
            for end in 0..=len {
                let mut search = Search::new(len);
                let mut probes = 0;
                while let Some(probe) = search.probe() {
                    search.answer(probe < end);
                    probes += 1;
                }
                assert_eq!(search.low, end);
                assert!(probes <= 8, "{len} {end}: {probes}");
            }
        }
    }
}
