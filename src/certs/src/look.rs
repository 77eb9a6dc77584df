use std::mem;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use fairlead_contract::Paths;
use jiff::Timestamp;

use crate::plan::Known;
use crate::seen::{Fingerprint, Seen};
use crate::store;
use crate::wanted::Wanted;

/// What is seen of a certificate before anything is decided about it.
pub(crate) enum Look {
    /// There is nothing to do until then.
    AtRest(Fingerprint, Timestamp),
    /// What its files say, and how a later pass may know them again.
    Closer(Box<Known>, Option<Fingerprint>),
}

/// Looks at each, in order. That is nearly all that a pass with nothing to do does, so every processor has its share.
pub(crate) fn look_at_all(
    paths: &Paths,
    seen: &Seen,
    wanted: Vec<Wanted>,
    now: Timestamp,
) -> Vec<(Wanted, Look)> {
    share_out(wanted, |wanted| {
        let look = look_at(paths, seen, &wanted, now);
        (wanted, look)
    })
}

fn look_at(paths: &Paths, seen: &Seen, wanted: &Wanted, now: Timestamp) -> Look {
    // Before the files are read: what changes in the meantime has other stamps.
    let stamps = store::take_stamps(&paths.certificate(&wanted.name));
    let fingerprint = stamps.map(|stamps| seen.fingerprint(wanted, &stamps));
    let rest = fingerprint.and_then(|fingerprint| Some((fingerprint, seen.recall(fingerprint, now)?)));
    match rest {
        Some((fingerprint, until)) => Look::AtRest(fingerprint, until),
        None => {
            let _span = wanted.span().entered();
            Look::Closer(Box::new(store::take_stock(paths, &wanted.name)), fingerprint)
        }
    }
}

/// Does the same with each item, in order, on all processors.
fn share_out<T: Send, U: Send>(mut items: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(processors).max(1);
    let work = &work;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        while !items.is_empty() {
            let rest = items.split_off(share.min(items.len()));
            let share = mem::replace(&mut items, rest);
            threads.push(scope.spawn(move || share.into_iter().map(work).collect::<Vec<_>>()));
        }
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}
