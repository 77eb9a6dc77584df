use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fairlead_contract::Paths;

/// Says what fairlead does and why, and makes changes live.
#[derive(Debug, Parser)]
#[command(name = "fairlead", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) paths: Paths,
}

const AFTER_HELP: &str = "\
Examples:
  fairlead why app.example.com
  fairlead check --config-dir ./etc
  fairlead dev

Exit codes: 0 all is well, 1 something is wrong and was said, 2 it could not be found out.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check all files: what would a reload do with them?
    #[command(after_help = "\
Problems go to standard error as file:line:column: message. Notes are faults that only leave
something out, such as a certificate that does not match its key.

Examples:
  fairlead check
  fairlead check --config-dir ./etc
  fairlead check --json | jq .problems

Exit codes: 0 a reload would be accepted, 1 it would be refused, 2 the files could not be checked.")]
    Check(Format),
    /// Show what the proxy serves, whether that is what is on disk, and what stands in the way
    #[command(after_help = "\
Examples:
  fairlead status
  fairlead status --json

Exit codes: 0 what is on disk is served, 1 something else is, or the proxy does not run,
2 it could not be found out.")]
    Status(Format),
    /// List the routes: hosts, upstreams, where they are declared, and their certificates
    #[command(after_help = "\
Containers that were left out stand below, with the reason.

Examples:
  fairlead routes
  fairlead routes --json

Exit codes: 0 all files hold, 1 some have faults, 2 some could not be read.")]
    Routes(Format),
    /// List the certificates: names, provider, how long they hold, when they are renewed
    #[command(after_help = "\
Examples:
  fairlead certs
  fairlead certs --json

Exit codes: 0 none is failing, 1 one is, 2 some could not be read.")]
    Certs(Format),
    /// Tell each step from a name to its HTTPS site, and what to do next
    #[command(after_help = "\
Examples:
  fairlead why app.example.com
  fairlead why https://app.example.com/
  fairlead why my-container

Exit codes: 0 it should answer, 1 it does not, 2 it could not be found out.")]
    Why {
        /// A host, the name or id of a container, or the name of a certificate
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Make what is on disk live, or say why it is refused
    #[command(after_help = "\
Does nothing if the proxy serves what is on disk already, or does not run: it reads the files when
it starts. A refused reload changes nothing.

Examples:
  fairlead reload
  fairlead reload --pid 4711

Exit codes: 0 what is on disk is live, 1 it was refused, 2 the proxy could not be asked.")]
    Reload {
        /// Send SIGHUP to this process, instead of asking systemd or the proxy for its own
        #[arg(long, value_name = "PID")]
        pid: Option<u32>,
        #[command(flatten)]
        format: Format,
    },
    /// Put what templates made, and copies of certificates, where fairlead.toml says they belong
    #[command(after_help = "\
A file whose check fails stays as it was. fairlead-deliver.service does this whenever the watcher made
something new or a certificate changed; after a change of an owner or a destination, start it.

Examples:
  systemctl start fairlead-deliver.service
  fairlead deliver --json

Exit codes: 0 every file is as it should be, 1 one is not, or a unit could not be told,
2 the settings could not be read.")]
    Deliver(Format),
    /// Run everything on loopback ports, without systemd and without root
    #[command(after_help = "\
Hosts below .localhost need no DNS. Certificates come from an authority of its own, which stays the
same from run to run. Routes come from containers, if there is a Docker socket, and from
DIR/etc/routes.d/*.toml, which is looked at every second. --config-dir, --state-dir and
--runtime-dir have no meaning here; the other commands ask about it when they name DIR/etc, DIR/var
and DIR/run.

Examples:
  fairlead dev
  fairlead dev --http 8080 --https 8443 --dir ./try
  fairlead why app.localhost --config-dir try/etc --state-dir try/var --runtime-dir try/run")]
    Dev(DevOptions),
}

/// How the answer is given.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DevOptions {
    /// The port for plain HTTP [default: 8080, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub(crate) http: Option<u16>,
    /// The port for HTTPS [default: 8443, or the next free one]
    #[arg(long, value_name = "PORT")]
    pub(crate) https: Option<u16>,
    /// Keep everything here [default: fairlead-dev in $XDG_STATE_HOME]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Docker's socket [default: that of DOCKER_HOST, else the one in fairlead.toml]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) docker: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_has_no_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn directories_can_be_named_before_and_after_the_command() {
        for line in [
            ["fairlead", "--state-dir", "/x", "check"],
            ["fairlead", "check", "--state-dir", "/x"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.paths.state, PathBuf::from("/x"));
        }
    }
}
