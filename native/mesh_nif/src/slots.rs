//! Limits how many workers may run in this VM.
//!
//! Each worker occupies a dirty IO scheduler while it serves, and all file IO of the VM needs the remaining
//! ones: without them it would hang silently. A gateway gets a slot for each worker when it opens, or fails
//! to open.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Occupied slots, over all gateways.
static TAKEN: Mutex<usize> = Mutex::new(0);

/// Too few slots are free.
pub struct NoneLeft {
    pub taken: usize,
}

/// The slots of one gateway. After `stop`, each slot is freed when its worker returns, so a successor need
/// not wait until this gateway is garbage-collected.
pub struct Slots(Mutex<State>);

struct State {
    stopped: bool,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    held: bool,
    /// Running calls. A second call fails at once because the first is running.
    calls: usize,
}

impl Slots {
    pub fn take(workers: usize, max: usize) -> Result<Slots, NoneLeft> {
        let mut taken = lock(&TAKEN);
        if *taken + workers > max {
            return Err(NoneLeft { taken: *taken });
        }
        *taken += workers;
        let slots = vec![Slot { held: true, calls: 0 }; workers];
        Ok(Slots(Mutex::new(State { stopped: false, slots })))
    }

    /// Runs a worker. A failed worker keeps its slot, because it is restarted.
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
        // No call is running: each holds a reference to the owner of this.
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
    fn slots_are_freed_only_when_their_workers_have_stopped() {
        let taken = || *lock(&TAKEN);
        let first = Slots::take(2, 3).ok().expect("two of three");
        assert_eq!(Slots::take(2, 3).err().map(|none| none.taken), Some(2));
        let second = Slots::take(1, 3).ok().expect("the third");
        // A failed worker keeps its slot.
        first.run(0, || {});
        assert_eq!(taken(), 3);
        first.run(0, || {
            first.run(1, || first.stop());
            first.run(0, || {});
            assert_eq!(taken(), 2, "one has returned, one runs");
        });
        assert_eq!(taken(), 1);
        // A slot is freed only once.
        first.run(0, || {});
        drop(first);
        assert_eq!(taken(), 1);
        drop(second);
        assert_eq!(taken(), 0);
    }
}
