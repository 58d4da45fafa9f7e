//! The lanes by example, and held against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use super::{Lanes, Pushed};

const NEVER: u64 = u64::MAX;

fn filled(most: usize, sessions: &[u32]) -> Lanes<(u32, u32)> {
    let mut lanes = Lanes::new(most);
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(lanes.push(*session, NEVER, (*session, number as u32)), Pushed::Waits);
    }
    lanes
}

fn emptied<T>(mut lanes: Lanes<T>) -> Vec<T> {
    std::iter::from_fn(|| lanes.pop()).collect()
}

#[test]
fn sessions_take_turns_and_each_keeps_its_order() {
    let lanes = filled(9, &[1, 1, 1, 1, 7, 7, 3]);
    assert_eq!(emptied(lanes), [(1, 0), (7, 4), (3, 6), (1, 1), (7, 5), (1, 2), (1, 3)]);
}

#[test]
fn a_newcomer_is_next_but_for_those_who_wait_already() {
    let mut lanes = filled(9, &[1, 1, 1, 2, 2]);
    assert_eq!(lanes.pop(), Some((1, 0)));
    assert_eq!(lanes.push(3, NEVER, (3, 9)), Pushed::Waits);
    assert_eq!(emptied(lanes), [(2, 3), (1, 1), (3, 9), (2, 4), (1, 2)]);
}

#[test]
fn whoever_waits_with_most_makes_room_for_a_newcomer() {
    let mut lanes = filled(5, &[1, 2, 1, 1, 2]);
    assert_eq!(lanes.push(3, NEVER, (3, 5)), Pushed::Displaced((1, 3)), "the newest of the longest lane");
    assert_eq!((lanes.len(), lanes.len_of(1), lanes.len_of(2), lanes.len_of(3), lanes.sessions()), (5, 2, 2, 1, 3));
    // Two each and one: neither the one with one nor those with two have less than a fair share now.
    for session in [1, 2, 3] {
        assert_eq!(lanes.push(session, NEVER, (session, 6)), Pushed::Refused((session, 6)));
    }
    assert!(matches!(lanes.push(4, NEVER, (4, 7)), Pushed::Displaced(_)), "a second newcomer finds room too");
}

#[test]
fn a_session_alone_has_all_places_and_one_more_is_refused() {
    let mut lanes = filled(3, &[5, 5, 5]);
    assert_eq!(lanes.push(5, NEVER, (5, 3)), Pushed::Refused((5, 3)));
    assert_eq!(emptied(lanes), [(5, 0), (5, 1), (5, 2)]);
}

#[test]
fn nobody_is_displaced_where_everybody_has_one() {
    let mut lanes = filled(3, &[0, 1, 2]);
    assert_eq!(lanes.push(3, NEVER, (3, 3)), Pushed::Refused((3, 3)));
}

#[test]
fn what_is_expired_or_taken_back_leaves_its_place() {
    let mut lanes = Lanes::new(6);
    for (session, deadline) in [(1, 50), (1, 10), (2, 20), (1, 30), (3, 99)] {
        assert_eq!(lanes.push(session, deadline, deadline), Pushed::Waits);
    }
    assert!(lanes.take_expired(9).is_empty());
    let mut expired = lanes.take_expired(20);
    expired.sort();
    assert_eq!((expired, lanes.len(), lanes.sessions()), (vec![10, 20], 3, 2));
    assert_eq!(lanes.take_if(|item| *item == 50), [50]);
    assert!(lanes.take_expired(29).is_empty());
    assert_eq!(lanes.take_expired(30), [30]);
    assert_eq!(emptied(lanes), [99]);
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What waits in the order of its coming, and how often each session has been served since it has waited without a break:
/// nothing but the promise itself.
#[derive(Default)]
struct Model {
    waiting: Vec<(u32, u64, u32)>,
    /// For each session that waits: items taken of anybody since it came or was served last.
    passed: BTreeMap<u32, usize>,
}

impl Model {
    fn count(&self, session: u32) -> usize {
        self.waiting.iter().filter(|(other, ..)| *other == session).count()
    }

    fn most(&self) -> usize {
        self.waiting.iter().map(|(session, ..)| self.count(*session)).max().unwrap_or(0)
    }

    fn remove(&mut self, number: u32) -> (u32, u64, u32) {
        let place = self.waiting.iter().position(|(.., other)| *other == number).expect("it waits");
        let taken = self.waiting.remove(place);
        self.passed.retain(|session, _| self.waiting.iter().any(|(other, ..)| other == session));
        taken
    }
}

#[test]
fn whatever_comes_in_whatever_order_the_shares_are_fair_and_nothing_is_lost() {
    for seed in 1..=300_u64 {
        let mut numbers = Numbers(seed * 0x9e37_79b9_7f4a_7c15);
        let (most, sessions) = (1 + numbers.below(12) as usize, 1 + numbers.below(6));
        let (mut lanes, mut model, mut now) = (Lanes::new(most), Model::default(), 0);
        for number in 0..400 {
            now += numbers.below(3);
            match numbers.below(10) {
                0..=5 => {
                    let (session, deadline) = (numbers.below(sessions) as u32, now + numbers.below(40));
                    let (own, longest, full) = (model.count(session), model.most(), model.waiting.len() >= most);
                    match lanes.push(session, deadline, number) {
                        Pushed::Waits => assert!(!full),
                        Pushed::Refused(refused) => {
                            assert!(full && longest <= own + 1 && refused == number, "refused below its share");
                            continue;
                        }
                        Pushed::Displaced(displaced) => {
                            let (loser, ..) = model.remove(displaced);
                            assert!(full && model.count(loser) + 1 == longest && longest > own + 1);
                            let newer = |other: &&(u32, u64, u32)| other.0 == loser && other.2 > displaced;
                            assert_eq!(model.waiting.iter().find(newer), None, "the newest goes");
                        }
                    }
                    model.waiting.push((session, deadline, number));
                    model.passed.entry(session).or_insert(0);
                }
                6..=7 => {
                    let Some(taken) = lanes.pop() else {
                        assert!(model.waiting.is_empty());
                        continue;
                    };
                    let (session, ..) = model.remove(taken);
                    let older = |other: &&(u32, u64, u32)| other.0 == session && other.2 < taken;
                    assert_eq!(model.waiting.iter().find(older), None, "in the order of a session's coming");
                    model.passed.values_mut().for_each(|passed| *passed += 1);
                    model.passed.entry(session).and_modify(|passed| *passed = 0);
                    // In turns: between two of a session, each other session is served once at most.
                    assert!(model.passed.values().all(|passed| *passed < sessions as usize), "{:?}", model.passed);
                }
                8 => {
                    let mut expired = lanes.take_expired(now);
                    expired.sort();
                    let is = |(_, deadline, _): &&(u32, u64, u32)| *deadline <= now;
                    let expected: Vec<u32> = model.waiting.iter().filter(is).map(|(.., number)| *number).collect();
                    assert_eq!(expired, expected);
                    for number in expired {
                        model.remove(number);
                    }
                }
                _ => {
                    let divisor = 2 + numbers.below(5) as u32;
                    for number in lanes.take_if(|number| number % divisor == 0) {
                        assert_eq!(model.remove(number).2 % divisor, 0);
                    }
                    assert!(model.waiting.iter().all(|(.., number)| number % divisor != 0));
                }
            }
            assert_eq!(lanes.len(), model.waiting.len());
            assert_eq!(lanes.sessions(), model.passed.len());
            (0..sessions as u32).for_each(|session| assert_eq!(lanes.len_of(session), model.count(session)));
        }
    }
}
