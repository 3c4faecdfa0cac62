//! Streams under keys that are not used again.

use std::collections::VecDeque;

use super::state::Stream;

/// Streams under keys of generation and place. A key is never 0 and has 56 bits.
///
/// A place rests as long as possible before it is used again, and then counts a generation up: a
/// key comes back only after four thousand million uses of its place.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<(u32, Option<Box<Stream>>)>,
    free: VecDeque<u32>,
}

impl Table {
    /// Keeps `stream` and tells its key; gives it back if the table is full.
    pub(super) fn insert(&mut self, stream: Box<Stream>) -> Result<u64, Box<Stream>> {
        // Places are not taken in turn before there are some, so that few streams stay close.
        let place = match self.free.len() {
            FEW.. => self.free.pop_front(),
            _ if self.places.len() < PLACES => {
                self.places.push((1, None));
                Some((self.places.len() - 1) as u32)
            }
            _ => self.free.pop_front(),
        };
        let Some(place) = place else {
            return Err(stream);
        };
        let (generation, slot) = &mut self.places[place as usize];
        *slot = Some(stream);
        Ok(key(*generation, place))
    }

    /// The stream under `key`, unless it has gone.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<&Stream> {
        match self.places.get(place_of(key)) {
            Some((generation, stream)) if *generation == generation_of(key) => stream.as_deref(),
            _ => None,
        }
    }

    /// The stream under `key`, unless it has gone.
    #[inline]
    pub(super) fn find_mut(&mut self, key: u64) -> Option<&mut Stream> {
        match self.places.get_mut(place_of(key)) {
            Some((generation, stream)) if *generation == generation_of(key) => {
                stream.as_deref_mut()
            }
            _ => None,
        }
    }

    /// Takes the stream under `key` out.
    pub(super) fn remove(&mut self, key: u64) -> Option<Box<Stream>> {
        let (generation, slot) = self.places.get_mut(place_of(key))?;
        if *generation != generation_of(key) {
            return None;
        }
        let stream = slot.take()?;
        *generation = generation.wrapping_add(1).max(1);
        self.free.push_back(place_of(key) as u32);
        Some(stream)
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The keys of all streams.
    pub(super) fn keys(&self) -> Vec<u64> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, (_, stream))| stream.is_some())
            .map(|(place, (generation, _))| key(*generation, place as u32))
            .collect()
    }
}

fn key(generation: u32, place: u32) -> u64 {
    u64::from(generation) << PLACE_BITS | u64::from(place)
}

fn place_of(key: u64) -> usize {
    (key & (PLACES as u64 - 1)) as usize
}

fn generation_of(key: u64) -> u32 {
    (key >> PLACE_BITS) as u32
}

const PLACE_BITS: u32 = 24;
const PLACES: usize = 1 << PLACE_BITS;
/// So many places rest before one is used again.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_stream_that_has_gone_finds_nothing() {
        let mut table = Table::default();
        let insert = |table: &mut Table| table.insert(Box::new(Stream::new(0, None))).ok();
        let old = insert(&mut table).unwrap();
        assert!(table.find(old).is_some());
        assert!(table.remove(old).is_some());
        assert!(table.remove(old).is_none());
        for _ in 0..100 {
            let new = insert(&mut table).unwrap();
            assert_ne!(new, old);
            assert!(table.find(old).is_none() && table.find_mut(old).is_none());
            assert_eq!((table.len(), table.keys()), (1, vec![new]));
            table.remove(new);
        }
        assert!(table.places.len() <= FEW + 1);
        assert!(table.find(0).is_none());
    }
}
