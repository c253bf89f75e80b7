//! Random walks over the foreign keys from the seed's entity: which rows of its table are met most often.
//!
//! Walks are independent of each other, so several are under way at once: while the memory of one is on its way,
//! others go on. Implements `documentation/sampling.md`, "Similar entities".

use super::config::SamplerConfig;
use super::context::Asked;
use super::frontier::StampedMap;
use super::plan::LinkPlan;
use super::rng::{Domain, Rng, hash};
use crate::database::View;
use crate::ids::RowId;

/// Walks under way at once.
const FLIGHTS: usize = 16;
/// Children drawn among all, visible or not, before the visible ones are counted.
const TRIES: u8 = 3;

/// A row met by walks.
#[derive(Clone, Copy, Debug)]
struct Hit {
    row: u32,
    times: u32,
    /// The least step at which it was met, and the walk that did.
    first: u64,
}

/// Where a walk is going; the memory of the next thing it looks at is on its way.
#[derive(Clone, Copy, Debug)]
enum Going {
    /// To a parent, if that is visible.
    Up { table: u32, row: u32 },
    /// To the child at a place of a list, if that is visible.
    Down { link: LinkPlan, start: u32, len: u32, at: u32, tries: u8 },
    /// To a visible child, found.
    Child { link: LinkPlan, row: u32 },
    /// Nowhere: there are no more walks to walk.
    Nowhere,
}

/// One walk under way.
#[derive(Clone, Debug)]
struct Flight {
    rng: Rng,
    walk: u32,
    step: u32,
    table: u32,
    row: u32,
    going: Going,
    /// Links of the row that are no choice any more, ascending.
    gone: Vec<u16>,
}

/// Finds entities like the seed's.
pub struct Similar<'a> {
    view: &'a View<'a>,
    num_walks: u32,
    length: u32,
    flights: Vec<Flight>,
    places: StampedMap,
    hits: Vec<Hit>,
}

impl<'a> Similar<'a> {
    /// Walks through `view` as the options say.
    pub fn new(view: &'a View<'a>, config: &SamplerConfig) -> Self {
        let flight = Flight {
            rng: Rng::default(),
            walk: 0,
            step: 0,
            table: 0,
            row: 0,
            going: Going::Nowhere,
            gone: Vec::with_capacity(16),
        };
        Self {
            view,
            num_walks: config.example_walks as u32,
            length: config.example_walk_length as u32,
            flights: vec![flight; FLIGHTS],
            places: StampedMap::with_capacity(256),
            hits: Vec::with_capacity(256),
        }
    }

    /// The rows of the anchor table that were met, most often first.
    pub fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.hits.iter().map(|hit| hit.row)
    }

    /// Walks all walks of a seed.
    pub fn walk(&mut self, asked: Asked<'a>, state: u64) {
        self.hits.clear();
        self.places.clear();
        // what an entity points to is known only to who sees it; a row that is asked about itself is always seen
        let entity = self.view.tables[asked.plan.anchor_table as usize].record(RowId(asked.row));
        let is_seen = asked.plan.target.is_some() || asked.visibility.row(entity.time());
        if !is_seen || self.length == 0 {
            return;
        }
        let mut flights = std::mem::take(&mut self.flights);
        let mut next = 0;
        for flight in &mut flights {
            self.depart(asked, state, flight, &mut next);
        }
        while flights.iter().any(|flight| !matches!(flight.going, Going::Nowhere)) {
            for flight in &mut flights {
                if !self.advance(asked, flight) {
                    self.depart(asked, state, flight, &mut next);
                }
            }
        }
        self.flights = flights;
        self.hits.sort_unstable_by_key(|hit| (u32::MAX - hit.times, hit.first));
    }

    /// Starts the next walk that gets anywhere.
    fn depart(&mut self, asked: Asked<'a>, state: u64, flight: &mut Flight, next: &mut u32) {
        while *next < self.num_walks {
            flight.rng = Rng::new(hash(Domain::ExampleWalk, &[state, u64::from(*next)]));
            (flight.walk, flight.step) = (*next, 0);
            (flight.table, flight.row) = (asked.plan.anchor_table, asked.row);
            flight.gone.clear();
            *next += 1;
            if self.choose(asked, flight) {
                return;
            }
        }
        flight.going = Going::Nowhere;
    }

    /// Goes on with a walk until it waits for memory; false when it has ended.
    #[inline]
    fn advance(&mut self, asked: Asked<'a>, flight: &mut Flight) -> bool {
        match flight.going {
            Going::Nowhere => true,
            Going::Up { table, row } => {
                let time = self.view.tables[table as usize].record(RowId(row)).time();
                if asked.visibility.row(time) {
                    self.arrive(asked, flight, table, row, None)
                } else {
                    self.choose(asked, flight)
                }
            }
            Going::Down { link, start, len, at, tries } => self.look(asked, flight, (link, start, len), at, tries),
            Going::Child { link, row } => self.arrive(asked, flight, link.table, row, Some(link.key)),
        }
    }

    /// Looks whether a child is visible.
    #[inline]
    fn look(
        &mut self,
        asked: Asked<'a>,
        flight: &mut Flight,
        (link, start, len): (LinkPlan, u32, u32),
        at: u32,
        tries: u8,
    ) -> bool {
        let children = &self.view.children[link.key as usize];
        let mut at = at;
        if !asked.visibility.child(children.times.get((start + at) as usize)) {
            if tries < TRIES {
                at = flight.rng.below(len);
                children.times.prefetch((start + at) as usize);
                children.indices.prefetch((start + at) as usize);
                flight.going = Going::Down { link, start, len, at, tries: tries + 1 };
                return true;
            }
            let time = |at: u32| children.times.get((start + at) as usize);
            let visible = asked.visibility.children(len, time);
            if visible.len == 0 {
                return self.choose(asked, flight);
            }
            at = visible.position(flight.rng.below(visible.len as u32));
        }
        let row = children.indices.get((start + at) as usize) as u32;
        self.view.tables[link.table as usize].prefetch(RowId(row));
        flight.going = Going::Child { link, row };
        true
    }

    /// Is at a row; false when the walk ends there.
    #[inline]
    fn arrive(&mut self, asked: Asked<'a>, flight: &mut Flight, table: u32, row: u32, down_by: Option<u32>) -> bool {
        (flight.table, flight.row) = (table, row);
        flight.step += 1;
        if table == asked.plan.anchor_table && row != asked.row {
            self.meet(row, u64::from(flight.step) << 32 | u64::from(flight.walk));
        }
        if flight.step == self.length {
            return false;
        }
        flight.gone.clear();
        if let Some(key) = down_by {
            // the way back leads to one row only
            let parents = &asked.plan.tables[table as usize].parents;
            flight.gone.extend(parents.iter().position(|link| link.key == key).map(|link| link as u16));
        }
        self.choose(asked, flight)
    }

    /// Counts a row.
    #[inline]
    fn meet(&mut self, row: u32, first: u64) {
        match self.places.find(u64::from(row)) {
            Ok(place) => {
                let hit = &mut self.hits[place as usize];
                hit.times += 1;
                hit.first = hit.first.min(first);
            }
            Err(vacant) => {
                self.places.fill(vacant, u64::from(row), self.hits.len() as u32);
                self.hits.push(Hit { row, times: 1, first });
            }
        }
    }

    /// Chooses a link to go along; false when none is left.
    #[inline]
    fn choose(&mut self, asked: Asked<'a>, flight: &mut Flight) -> bool {
        let plan = &asked.plan.tables[flight.table as usize];
        let record = self.view.tables[flight.table as usize].record(RowId(flight.row));
        let links = plan.parents.len() + plan.children.len();
        while flight.gone.len() < links {
            let link = flight.draw(links);
            if let Some(link) = plan.parents.get(link) {
                let Some(row) = record.parent(link.slot) else { continue };
                self.view.tables[link.table as usize].prefetch(RowId(row));
                flight.going = Going::Up { table: link.table, row };
                return true;
            }
            let link = plan.children[link - plan.parents.len()];
            let range = record.children(link.slot);
            if range.is_empty() {
                continue;
            }
            let (start, len) = (range.start as u32, range.len() as u32);
            let at = flight.rng.below(len);
            let children = &self.view.children[link.key as usize];
            children.times.prefetch((start + at) as usize);
            children.indices.prefetch((start + at) as usize);
            flight.going = Going::Down { link, start, len, at, tries: 1 };
            return true;
        }
        false
    }
}

impl Flight {
    /// One of the links that are still a choice, which it then is no more.
    #[inline]
    fn draw(&mut self, links: usize) -> usize {
        let mut link = self.rng.below((links - self.gone.len()) as u32) as u16;
        let mut place = 0;
        while place < self.gone.len() && self.gone[place] <= link {
            (link, place) = (link + 1, place + 1);
        }
        self.gone.insert(place, link);
        usize::from(link)
    }
}
