//! Values under keys that are never mistaken for one another: a key names its place and the
//! generation of its place, so that the key of a value that has gone finds nothing. A key is never 0.

/// Values under keys of place and generation.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// No values.
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Keeps `value` and tells its key.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((1, None));
            (self.places.len() - 1) as u32
        });
        let (generation, slot) = &mut self.places[place as usize];
        *slot = Some(value);
        key(*generation, place)
    }

    /// The value under `key`, unless it has gone.
    #[inline]
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        match self.places.get_mut(key as u32 as usize) {
            Some((generation, value)) if *generation == (key >> 32) as u32 => value.as_mut(),
            _ => None,
        }
    }

    /// Takes the value under `key` out.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let place = key as u32;
        let (generation, slot) = self.places.get_mut(place as usize)?;
        if *generation != (key >> 32) as u32 {
            return None;
        }
        let value = slot.take()?;
        *generation = ((*generation + 1) & LAST_GENERATION).max(1);
        self.free.push(place);
        Some(value)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The keys of all values.
    pub(super) fn keys(&self) -> Vec<u64> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, (_, value))| value.is_some())
            .map(|(place, (generation, _))| key(*generation, place as u32))
            .collect()
    }
}

fn key(generation: u32, place: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

/// Generations have 28 bits, so that a key leaves room for a tag above it.
const LAST_GENERATION: u32 = 0x0FFF_FFFF;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_value_that_has_gone_finds_nothing() {
        let mut slab = Slab::new();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_ne!(old, new);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get_mut(new), Some(&mut "new"));
        assert_eq!(slab.keys(), vec![new]);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn no_key_is_0() {
        let mut slab = Slab::new();
        let first = slab.insert(());
        assert_ne!(first, 0);
        assert_eq!(slab.get_mut(0), None);
        slab.remove(first);
        slab.places[0].0 = LAST_GENERATION;
        let last = slab.insert(());
        slab.remove(last);
        let anew = slab.insert(());
        assert_ne!(anew, 0);
        assert_eq!(slab.remove(last), None);
        assert_eq!(slab.remove(anew), Some(()));
    }
}
