//! Deliberate bugs, to see that the simulator catches them.
//!
//! Those of the replica, too. Each is one line at the place that its name tells, and one at a time is
//! switched on, for the thread that runs a simulation. Without the feature `mutants`, which no product
//! is built with, the switch is a constant and the lines are gone.

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Switches one on for this thread, or all off.
    pub fn set(name: Option<&'static str>) {
        ON.set(name);
    }

    /// Whether this one is switched on.
    #[must_use]
    pub fn on(name: &str) -> bool {
        ON.get() == Some(name)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{on, set};

#[cfg(not(feature = "mutants"))]
/// Whether this one is switched on: never.
#[must_use]
pub const fn on(_name: &str) -> bool {
    false
}
