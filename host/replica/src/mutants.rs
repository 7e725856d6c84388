//! Deliberate bugs, to see that the simulator catches them.
//!
//! Each is one line at the place that its name tells, and one at a time is switched on, for the
//! thread that runs a simulation. Without the feature `mutants`, which no product is built with,
//! the switch is a constant and the lines are gone.

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

    pub(crate) fn on(name: &str) -> bool {
        ON.get() == Some(name)
    }
}

#[cfg(feature = "mutants")]
pub use switch::set;

#[cfg(feature = "mutants")]
pub(crate) use switch::on;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_name: &str) -> bool {
    false
}
