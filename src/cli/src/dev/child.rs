//! Programs that end with the one that started them, even if that is killed.
//!
//! The kernel ends a process with its parent if the process itself asks for that. The programs would not, so this
//! one is started in their place: it asks, and becomes the program, which keeps what was asked.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ExitCode};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::Command;

use crate::answer::print_fault;

/// The name that this program is started under when it is to become another.
const NAME: &str = "fairlead-dev-child";

/// A command that becomes `program`, with the arguments that it is given further.
pub(crate) fn command(program: &Path) -> Command {
    // Not by its path, which another build may have taken over.
    let mut command = process::Command::new("/proc/self/exe");
    command.arg0(NAME).arg(process::id().to_string()).arg(program);
    command.into()
}

/// Whether this process was started by [`command`].
pub(crate) fn is_meant() -> bool {
    env::args_os().next().is_some_and(|name| name == NAME)
}

/// Does not return if all goes well.
pub(crate) fn become_program() -> ExitCode {
    let Err(error) = try_to_become(env::args_os().skip(1)) else {
        return ExitCode::SUCCESS;
    };
    // Nobody else can be told.
    let _ = print_fault(&format!("fairlead: {error:#}"));
    ExitCode::FAILURE
}

fn try_to_become(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let parent = arguments.next().and_then(|id| id.to_str()?.parse().ok());
    let program = arguments.next().context("no program is named")?;
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to end with fairlead dev")?;
    // It may have ended before.
    ensure!(
        getppid() == parent.and_then(Pid::from_raw),
        "fairlead dev has ended"
    );
    let error: io::Error = process::Command::new(&program).args(arguments).exec();
    let name = Path::new(&program).display();
    Err(error).with_context(|| format!("cannot start {name}: install it beside fairlead"))
}
