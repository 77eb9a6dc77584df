use std::path::Path;

use anyhow::{Context, Result};
use fairlead_contract::{Paths, Written, remove_if_present, write_atomically};
use tracing::{info, warn};

use crate::changes::{Change, changes};
use crate::daemon::Daemon;
use crate::known::{Known, with_socket};
use crate::plan::{Plan, plan};

/// Readable by group fairlead: what containers ask for is not for everybody.
const MODE: u32 = 0o640;

/// Brings the routes file up to date with the containers that run.
///
/// If anything fails the file stays as it is. The mark goes before anything is read, so a change
/// during the pass makes a new one.
pub(crate) async fn pass(paths: &Paths, socket: Option<&Path>) -> Result<()> {
    remove_if_present(&paths.watcher_dirty_file())?;
    let known = Known::read(paths)?;
    let settings = with_socket(known.docker.clone(), socket);
    let daemon = Daemon::connect(&settings)?;
    let mut containers = daemon.running_containers().await?;
    if !settings.image_labels {
        daemon.set_image_labels_aside(&mut containers).await?;
    }
    let plan = plan(containers, &known);
    let text = plan
        .discovery
        .render()
        .context("the routes cannot be put into words")?;
    if write_atomically(&paths.discovery_file(), text.as_bytes(), MODE)? == Written::Changed {
        report(&known, &plan);
    }
    Ok(())
}

fn report(known: &Known, plan: &Plan) {
    for change in changes(&known.present, &plan.discovery) {
        match change {
            Change::LeftOut(_) => warn!("{change}"),
            _ => info!("{change}"),
        }
    }
    for remark in &plan.remarks {
        info!("{remark}");
    }
}
