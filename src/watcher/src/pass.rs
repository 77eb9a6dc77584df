use std::path::Path;

use anyhow::{Context, Result, ensure};
use fairlead_contract::{
    Configuration, Files, HostPattern, MAX_FILE_BYTES, Paths, Problem, is_written, remove_if_present,
    write_atomically,
};
use tracing::span::EnteredSpan;
use tracing::{error_span, info, warn};

use crate::changes::{Change, changes};
use crate::daemon::{Daemon, DaemonError};
use crate::known::{Known, with_socket};
use crate::plan::{Plan, plan};
use crate::reload;
use crate::templates::{Data, render_all};

/// Readable by group fairlead: what containers ask for is not for everybody.
const MODE: u32 = 0o640;

/// Brings the routes file up to date with the containers that run, and with `reloads` the proxy with the file.
///
/// If anything fails the file stays as it is. The mark goes before anything is read, so a change
/// during the pass makes a new one; so does a daemon that hangs.
pub(crate) async fn pass(paths: &Paths, socket: Option<&Path>, reloads: bool) -> Result<()> {
    remove_if_present(&paths.watcher_dirty_file())?;
    let known = Known::read(paths)?;
    let settings = with_socket(known.docker.clone(), socket);
    let daemon = Daemon::connect(&settings)?;
    let containers = match daemon.containers(&settings).await {
        // What it hung about was told already, and no other event may come.
        Err(silent @ DaemonError::Silent(_)) => {
            write_atomically(&paths.watcher_dirty_file(), b"", MODE)?;
            return Err(silent.into());
        }
        containers => containers?,
    };
    let described = (!known.templates.is_empty()).then(|| containers.clone());
    let plan = plan(containers, &known);
    let text = plan
        .discovery
        .render()
        .context("the routes cannot be put into words")?;
    let file = paths.discovery_file();
    if !is_written(&file, text.as_bytes(), MODE) {
        refuse_unreadable(&file, &text)?;
        if reloads {
            reload::mark(paths)?;
        }
        write_atomically(&file, text.as_bytes(), MODE)?;
        report(&known, &plan);
    }
    let loaded = match reloads {
        true => reload::reload_if_marked(paths).await,
        false => Ok(()),
    };
    // Files for other programs do not wait until the operator has mended one of the proxy's.
    if let Some(containers) = described {
        let routes = known.operators.iter().chain(&plan.discovery.routes);
        let data = Data::new(&containers, routes, &plan.discovery.rejections);
        render_all(paths, &known.templates, &data)?;
    }
    Ok(loaded?)
}

/// The proxy refuses a whole reload for one fault, the operator's changes among it: the file before is better.
fn refuse_unreadable(file: &Path, text: &str) -> Result<()> {
    let shown = file.display();
    ensure!(
        text.len() as u64 <= MAX_FILE_BYTES,
        "{shown} would be larger than 16 MiB, which nobody reads: let the containers ask for less"
    );
    let read = Configuration::parse(&Files {
        discovery: Some((file.to_owned(), Ok(text.as_bytes().to_vec()))),
        ..Files::default()
    });
    let faults: Vec<_> = read.problems.iter().map(Problem::to_string).collect();
    ensure!(
        faults.is_empty(),
        "{shown} stays as it is, for the new one would be refused. That is a fault of fairlead's, please report it:\n{}",
        faults.join("\n")
    );
    Ok(())
}

fn report(known: &Known, plan: &Plan) {
    for change in changes(&known.present, &plan.discovery) {
        let _about: Vec<_> = change.containers().map(about).collect();
        let route = change.route().map(HostPattern::to_string);
        match change {
            Change::LeftOut(_) => warn!("{change}"),
            _ => info!(route, "{change}"),
        }
    }
    for remark in &plan.remarks {
        info!(container = remark.container, "{}", remark.text);
    }
}

/// Gives what is logged meanwhile the container's name as a field. An event has each field once, and a
/// route may have several containers: they are spans around each other.
fn about(container: &str) -> EnteredSpan {
    error_span!("about", container).entered()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_reader_would_take_is_not_written() {
        let refused = |text: &str| refuse_unreadable(Path::new("docker.toml"), text);
        assert!(refused("# Nothing.\n").is_ok());
        let faulty = refused("[[route]]\n").unwrap_err().to_string();
        assert!(faulty.contains("docker.toml:1:1: a route needs"), "{faulty}");
        let large = "#".repeat(MAX_FILE_BYTES as usize + 1);
        let large = refused(&large).unwrap_err().to_string();
        assert!(large.contains("larger than 16 MiB"), "{large}");
    }
}
