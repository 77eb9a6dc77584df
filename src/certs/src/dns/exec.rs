use std::process::Stdio;
use std::time::Duration;

use fairlead_contract::{Exec, escaped};
use tokio::process::Command;
use tokio::time::timeout;

use crate::dns::{DnsError, Record};

/// A program that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(2 * 60);

/// Calls the program with `verb` (`present` or `cleanup`), the record's name and its value.
pub(crate) async fn run(program: &Exec, verb: &str, record: &Record) -> Result<(), DnsError> {
    let failed = |cause: String| DnsError::Program {
        program: program.command.join(" "),
        cause,
    };
    let [path, arguments @ ..] = program.command.as_slice() else {
        return Err(failed("there is none".to_owned()));
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .args([verb, &record.name.to_ascii(), &record.value])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(LIMIT, command.output())
        .await
        .map_err(|_| failed(format!("it ran for more than {} seconds", LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{}: {}", output.status, escaped(said.trim()))))
        }
    }
}
