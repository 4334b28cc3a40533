//! How many workers may run in this VM. Each takes a dirty IO scheduler for as long as it serves,
//! whichever gateway it belongs to, and the file IO of the whole VM needs the others: with none left
//! it would hang without a word. So a gateway gets a slot for each of its workers when it is opened,
//! or it is not opened.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Slots that are taken, over all gateways.
static TAKEN: Mutex<usize> = Mutex::new(0);

/// Not enough are left.
pub struct NoneLeft {
    pub taken: usize,
}

/// The slots of one gateway. Once it has been told to stop, each is free when its worker has
/// returned: a gateway that takes its place need not wait until this one has been forgotten.
pub struct Slots(Mutex<State>);

struct State {
    stopped: bool,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    held: bool,
    /// Calls under way. A second one ends at once, and says that there is a first.
    calls: usize,
}

impl Slots {
    pub fn take(workers: usize, most: usize) -> Result<Slots, NoneLeft> {
        let mut taken = lock(&TAKEN);
        if *taken + workers > most {
            return Err(NoneLeft { taken: *taken });
        }
        *taken += workers;
        let slots = vec![Slot { held: true, calls: 0 }; workers];
        Ok(Slots(Mutex::new(State { stopped: false, slots })))
    }

    /// Runs a worker. A failed one keeps its slot, for it is started anew.
    pub fn run<T>(&self, index: usize, call: impl FnOnce() -> T) -> T {
        self.change(|state| state.slots.get_mut(index).into_iter().for_each(|s| s.calls += 1));
        let result = call();
        self.change(|state| state.slots.get_mut(index).into_iter().for_each(|s| s.calls -= 1));
        result
    }

    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = lock(&self.0);
        how(&mut state);
        if state.stopped {
            for slot in state.slots.iter_mut().filter(|slot| slot.held && slot.calls == 0) {
                slot.held = false;
                *lock(&TAKEN) -= 1;
            }
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // No call is under way: each of them holds what this is a part of.
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_free_when_their_workers_have_stopped_and_not_before() {
        let taken = || *lock(&TAKEN);
        let first = Slots::take(2, 3).ok().expect("two of three");
        assert_eq!(Slots::take(2, 3).err().map(|none| none.taken), Some(2));
        let second = Slots::take(1, 3).ok().expect("the third");
        // A worker that failed keeps it.
        first.run(0, || {});
        assert_eq!(taken(), 3);
        first.run(0, || {
            first.run(1, || first.stop());
            first.run(0, || {});
            assert_eq!(taken(), 2, "one has returned, one runs");
        });
        assert_eq!(taken(), 1);
        // And only once.
        first.run(0, || {});
        drop(first);
        assert_eq!(taken(), 1);
        drop(second);
        assert_eq!(taken(), 0);
    }
}
