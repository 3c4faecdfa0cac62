use super::*;

fn lane(slots: u16, concurrency: u16, window: u16) -> Lane {
    let lane = Lane::new(slots);
    assert!(lane.occupy(LaneLimits {
        slots,
        concurrency,
        window,
        streams: 0,
    }));
    lane.open(true);
    lane
}

fn take(lane: &Lane) -> Option<(u16, u32)> {
    lane.take(lane.gate_with_room(Work::Request)?, Work::Request)
}

fn counters(lane: &Lane) -> u64 {
    lane.gate().0 & COUNTERS
}

#[test]
fn each_of_the_three_limits_holds() {
    for (lane, room) in [
        (lane(3, 9, 9), 3),
        (lane(9, 4, 9), 4),
        (lane(9, 9, 5), 5),
        (lane(0, 9, 9), 1),
    ] {
        assert_eq!((0..20).filter_map(|_| take(&lane)).count(), room);
    }
}

#[test]
fn every_slot_of_the_widest_lane_is_used_once() {
    let lane = lane(u16::MAX, u16::MAX, u16::MAX);
    for slot in 0..u16::MAX {
        assert_eq!(take(&lane), Some((slot, 1)));
    }
    assert_eq!(take(&lane), None);
    for slot in 0..u16::MAX {
        lane.finish(slot, 1);
    }
    assert_eq!(counters(&lane), 0);
}

#[test]
fn the_lowest_free_slot_is_taken_first() {
    let lane = lane(130, 130, 130);
    let taken: Vec<_> = (0..130).filter_map(|_| take(&lane)).collect();
    for slot in [129, 65, 3] {
        lane.finish(slot, taken[usize::from(slot)].1);
    }
    assert_eq!(take(&lane), Some((3, 2)));
    assert_eq!(take(&lane), Some((65, 2)));
    assert_eq!(take(&lane), Some((129, 2)));
    assert_eq!(take(&lane), None);
}

#[test]
fn streams_have_a_limit_of_their_own_among_the_others() {
    let lane = Lane::new(4);
    assert!(lane.occupy(LaneLimits {
        slots: 4,
        concurrency: 3,
        window: 4,
        streams: 2,
    }));
    lane.open(true);
    let stream = || lane.take(lane.gate_with_room(Work::Stream)?, Work::Stream);
    let (first, _) = (stream().unwrap(), stream().unwrap());
    assert_eq!(stream(), None);
    let request = take(&lane).unwrap();
    assert_eq!(take(&lane), None, "streams count among all");
    lane.finish(request.0, request.1);
    assert_eq!(stream(), None);
    lane.start(first.0, first.1);
    lane.finish(first.0, first.1);
    assert!(stream().is_some());
    lane.vacate();
    assert_eq!(counters(&lane), 0);
}

#[test]
fn starting_and_finishing_count_once() {
    let lane = lane(4, 4, 1);
    let (slot, generation) = take(&lane).unwrap();
    assert_eq!(take(&lane), None, "the window is full");
    lane.start(slot, generation);
    lane.start(slot, generation);
    let other = take(&lane).unwrap();
    assert_eq!(take(&lane), None, "the window is full again");
    lane.finish(slot, generation);
    lane.finish(slot, generation);
    lane.start(slot, generation);
    assert_eq!(lane.gate().in_flight(), 1);
    lane.finish(other.0, other.1);
    assert_eq!(counters(&lane), 0);
}

#[test]
fn slots_and_generations_that_do_not_exist_are_ignored() {
    let lane = lane(2, 2, 2);
    let (slot, generation) = take(&lane).unwrap();
    for (slot, generation) in [
        (slot, generation + 1),
        (1, 0),
        (1, 1),
        (64, 1),
        (u16::MAX, 1),
    ] {
        lane.start(slot, generation);
        lane.finish(slot, generation);
        assert!(!lane.holds(slot, generation));
    }
    assert!(lane.holds(slot, generation));
    assert_eq!(counters(&lane), IN_FLIGHT + UNSTARTED);
}

#[test]
fn an_earlier_incarnation_has_no_say() {
    let lane = lane(2, 2, 2);
    let seen = lane.gate_with_room(Work::Request).unwrap();
    let old = take(&lane).unwrap();
    lane.vacate();
    assert!(!lane.holds(old.0, old.1));
    assert!(lane.gate_with_room(Work::Request).is_none());
    assert!(lane.occupy(LaneLimits {
        slots: 1,
        concurrency: 1,
        window: 1,
        streams: 0,
    }));
    lane.open(true);
    assert_eq!(counters(&lane), 0);
    assert_eq!(
        lane.take(seen, Work::Request),
        None,
        "the same counters, another lane"
    );
    let new = take(&lane).unwrap();
    assert_eq!(new.0, old.0);
    assert_ne!(new.1, old.1);
    lane.start(old.0, old.1);
    lane.finish(old.0, old.1);
    assert_eq!(counters(&lane), IN_FLIGHT + UNSTARTED);
    assert_eq!(take(&lane), None, "the new limits count");
}

#[test]
fn a_lane_is_occupied_only_when_vacant_and_large_enough() {
    let lane = Lane::new(65);
    let limits = |slots| LaneLimits {
        slots,
        concurrency: 1,
        window: 1,
        streams: 0,
    };
    assert!(!lane.occupy(limits(129)));
    assert!(lane.occupy(limits(128)));
    assert!(!lane.occupy(limits(1)));
    lane.vacate();
    assert!(lane.occupy(limits(1)));
}

#[test]
fn generations_wrap_around_zero() {
    assert_eq!(next_generation(pack(u32::MAX, FREE)), 1);
}
