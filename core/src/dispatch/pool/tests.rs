use super::*;

fn pool(queue_size: usize) -> Pool {
    Pool::new(PoolLimits {
        queue_size,
        limit_concurrency: None,
    })
}

fn add(pool: &Pool, room: u16) -> u16 {
    let lane = pool
        .add_lane(LaneLimits {
            slots: room,
            concurrency: room,
            window: room,
            streams: 0,
        })
        .unwrap();
    pool.open_lane(lane);
    lane
}

fn granted(admission: Admission) -> Reservation {
    let Admission::Granted(reservation) = admission else {
        panic!("not granted: {admission:?}");
    };
    reservation
}

fn queued(admission: Admission) -> Arc<Ticket> {
    let Admission::Queued(ticket) = admission else {
        panic!("not queued: {admission:?}");
    };
    ticket
}

#[test]
fn the_lane_with_the_fewest_in_flight_is_taken_and_the_lowest_among_equals() {
    let pool = pool(1);
    for _ in 0..3 {
        add(&pool, 2);
    }
    let lanes: Vec<_> = (0..6)
        .map(|exchange| granted(pool.admit(Work::Request, 0, exchange)))
        .collect();
    let order: Vec<_> = lanes.iter().map(|reservation| reservation.lane).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    pool.release(lanes[4]);
    assert_eq!(granted(pool.admit(Work::Request, 0, 9)).lane, 1);
}

#[test]
fn a_stalled_lane_is_the_last_resort() {
    let pool = pool(1);
    add(&pool, 2);
    add(&pool, 1);
    pool.mark_stalled(0, true);
    assert_eq!(granted(pool.admit(Work::Request, 0, 0)).lane, 1);
    assert_eq!(granted(pool.admit(Work::Request, 0, 1)).lane, 0);
    pool.mark_stalled(0, false);
    assert_eq!(granted(pool.admit(Work::Request, 0, 2)).lane, 0);
}

#[test]
fn what_finds_no_room_waits_in_order_until_the_line_is_full() {
    let pool = pool(2);
    assert!(pool.pump().is_none());
    let lane = add(&pool, 1);
    let first = granted(pool.admit(Work::Request, 0, 0));
    queued(pool.admit(Work::Request, 7, 1));
    queued(pool.admit(Work::Request, 8, 2));
    assert!(matches!(pool.admit(Work::Request, 0, 3), Admission::Full));
    assert_eq!(pool.waiting(), 2);
    assert!(pool.pump().is_none());
    pool.finished(first.lane, first.slot, first.generation);
    let (ticket, second) = pool.pump().unwrap();
    assert_eq!((ticket.owner(), ticket.exchange()), (7, 1));
    assert!(!ticket.cancel());
    assert!(pool.pump().is_none());
    pool.release(second);
    assert_eq!(pool.pump().unwrap().0.exchange(), 2);
    assert_eq!(pool.in_flight(lane), 1);
}

#[test]
fn streams_go_where_they_are_taken_and_wait_for_nobody_else() {
    let pool = pool(4);
    let plain = add(&pool, 1);
    queued(pool.admit(Work::Stream, 0, 0));
    assert!(pool.pump().is_none());
    let request = granted(pool.admit(Work::Request, 0, 1));
    assert_eq!(request.lane, plain);
    queued(pool.admit(Work::Request, 0, 2));
    let both = pool
        .add_lane(LaneLimits {
            slots: 3,
            concurrency: 3,
            window: 3,
            streams: 1,
        })
        .unwrap();
    pool.open_lane(both);
    let (ticket, stream) = pool.pump().unwrap();
    assert_eq!((ticket.exchange(), stream.lane), (0, both));
    assert_eq!(pool.pump().unwrap().0.exchange(), 2);
    queued(pool.admit(Work::Stream, 0, 3));
    pool.release(request);
    assert!(pool.pump().is_none());
    assert_eq!(granted(pool.admit(Work::Request, 0, 4)).lane, plain);
    assert!(pool.reserve_elsewhere(Work::Stream, plain).is_none());
    pool.release(stream);
    assert_eq!(pool.pump().unwrap().0.exchange(), 3);
}

#[test]
fn a_start_makes_room_in_the_window() {
    let pool = pool(1);
    let lane = pool
        .add_lane(LaneLimits {
            slots: 8,
            concurrency: 8,
            window: 1,
            streams: 0,
        })
        .unwrap();
    pool.open_lane(lane);
    let first = granted(pool.admit(Work::Request, 0, 0));
    queued(pool.admit(Work::Request, 0, 1));
    pool.started(first.lane, first.slot, first.generation);
    assert!(pool.pump().is_some());
    assert_eq!(pool.in_flight(lane), 2);
}

#[test]
fn a_newcomer_does_not_overtake() {
    let pool = pool(2);
    let lane = add(&pool, 1);
    let first = granted(pool.admit(Work::Request, 0, 0));
    queued(pool.admit(Work::Request, 0, 1));
    pool.finished(lane, first.slot, first.generation);
    queued(pool.admit(Work::Request, 0, 2));
    assert_eq!(pool.pump().unwrap().0.exchange(), 1);
}

#[test]
fn a_cancelled_ticket_is_passed_over_and_strands_nobody() {
    let pool = pool(4);
    let lane = add(&pool, 1);
    let first = granted(pool.admit(Work::Request, 0, 0));
    assert!(queued(pool.admit(Work::Request, 0, 1)).cancel());
    queued(pool.admit(Work::Request, 0, 2));
    pool.finished(lane, first.slot, first.generation);
    assert_eq!(pool.pump().unwrap().0.exchange(), 2);
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn what_is_dispatched_again_goes_first_and_is_never_refused() {
    let pool = pool(1);
    let lane = add(&pool, 1);
    let first = granted(pool.admit(Work::Request, 0, 0));
    queued(pool.admit(Work::Request, 0, 1));
    queued(pool.readmit(Work::Request, 0, 2));
    queued(pool.readmit(Work::Request, 0, 3));
    let mut held = first;
    for expected in [2, 3, 1] {
        pool.finished(lane, held.slot, held.generation);
        let (ticket, reservation) = pool.pump().unwrap();
        assert_eq!(ticket.exchange(), expected);
        held = reservation;
    }
}

#[test]
fn the_limit_counts_those_who_wait() {
    let pool = Pool::new(PoolLimits {
        queue_size: 8,
        limit_concurrency: Some(2),
    });
    add(&pool, 1);
    granted(pool.admit(Work::Request, 0, 0));
    queued(pool.admit(Work::Request, 0, 1));
    assert!(matches!(pool.admit(Work::Request, 0, 2), Admission::Limit));
    queued(pool.readmit(Work::Request, 0, 3));
    pool.leave();
    queued(pool.admit(Work::Request, 0, 4));
    assert!(matches!(pool.admit(Work::Request, 0, 5), Admission::Limit));
}

#[test]
fn who_finds_the_line_full_does_not_count() {
    let pool = Pool::new(PoolLimits {
        queue_size: 0,
        limit_concurrency: Some(2),
    });
    assert!(matches!(pool.admit(Work::Request, 0, 0), Admission::Full));
    assert!(matches!(pool.admit(Work::Request, 0, 0), Admission::Full));
    assert!(matches!(pool.admit(Work::Request, 0, 0), Admission::Full));
}

#[test]
fn a_closed_lane_takes_nothing_and_goes_on_with_what_it_has() {
    let pool = pool(4);
    let lane = add(&pool, 2);
    let first = granted(pool.admit(Work::Request, 0, 0));
    pool.close_lane(lane);
    queued(pool.admit(Work::Request, 0, 1));
    pool.started(lane, first.slot, first.generation);
    assert!(pool.holds(first));
    pool.finished(lane, first.slot, first.generation);
    assert_eq!(pool.in_flight(lane), 0);
    assert!(pool.pump().is_none());
    pool.open_lane(lane);
    assert!(pool.pump().is_some());
}

#[test]
fn a_removed_lane_leaves_its_index_and_nothing_else() {
    let pool = pool(4);
    let gone = add(&pool, 2);
    let other = add(&pool, 2);
    let old = granted(pool.admit(Work::Request, 0, 0));
    assert_eq!(old.lane, gone);
    pool.remove_lane(gone);
    assert!(!pool.holds(old));
    assert_eq!(pool.in_flight(gone), 0);
    pool.open_lane(gone);
    assert_eq!(granted(pool.admit(Work::Request, 0, 1)).lane, other);
    assert_eq!(add(&pool, 2), gone);
    let new = granted(pool.admit(Work::Request, 0, 2));
    assert_eq!((new.lane, new.slot), (old.lane, old.slot));
    pool.release(old);
    assert!(pool.holds(new));
}

#[test]
fn lanes_are_as_many_as_promised() {
    let pool = pool(4);
    for index in 0..MAX_LANES {
        assert_eq!(add(&pool, 1), index);
    }
    let limits = LaneLimits {
        slots: 1,
        concurrency: 1,
        window: 1,
        streams: 0,
    };
    assert_eq!(pool.add_lane(limits), None);
    let mut lanes: Vec<_> = (0..1024)
        .map(|exchange| granted(pool.admit(Work::Request, 0, exchange)).lane)
        .collect();
    lanes.dedup();
    assert_eq!(lanes.len(), 1024);
    queued(pool.admit(Work::Request, 0, 0));
    pool.remove_lane(700);
    assert_eq!(pool.add_lane(limits), Some(700));
    for lane in [MAX_LANES, u16::MAX] {
        pool.open_lane(lane);
        pool.close_lane(lane);
        pool.remove_lane(lane);
        pool.mark_stalled(lane, true);
        pool.finished(lane, 0, 1);
        assert_eq!(pool.in_flight(lane), 0);
    }
}

#[test]
fn room_beside_a_lane_is_room_elsewhere() {
    let pool = pool(4);
    let lane = add(&pool, 1);
    assert!(!pool.has_room_beside(lane));
    let other = add(&pool, 1);
    assert!(pool.has_room_beside(lane));
    pool.close_lane(other);
    assert!(!pool.has_room_beside(lane));
}
