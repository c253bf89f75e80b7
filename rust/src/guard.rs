//! Damaged input may panic deep in a reader: the parquet crate at a bad page, a walk at an index outside of its array.
//! Whoever knows what was read turns that into an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` when it panicked, of which nothing is printed.
///
/// The first call puts a hook before the program's own that keeps silent on guarded threads and passes everything
/// else on.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let program = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                program(panic);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    IS_GUARDED.set(outer);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_ends_there() {
        assert_eq!((guarded(|| 1), guarded(|| -> u8 { panic!("damaged") }), guarded(|| 2)), (Some(1), None, Some(2)));
        assert!(!IS_GUARDED.get());
    }
}
