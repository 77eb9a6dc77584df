//! What the fuzz targets reach of the watcher, and nothing else does.

use fairlead_contract::Discovery;

use crate::container::read_one_by_one;
use crate::known::Known;
use crate::plan::plan;

/// What a pass writes that knows nothing before and gets this list from Docker; `None` if it is no list of
/// containers.
pub fn discover(list: &str) -> Option<Discovery> {
    let containers = read_one_by_one(list)?;
    Some(plan(containers, &Known::default()).discovery)
}
