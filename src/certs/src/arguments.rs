use clap::{Args, Parser, Subcommand, ValueEnum};
use fairlead_contract::{AuthorityName, HostPattern, Paths};

/// Obtains and renews the certificates that routes need, and ends.
///
/// A certificate that could not be obtained does not affect the others. Why it failed and when it is tried
/// again stands in its state.toml, and `fairlead certs` tells it.
#[derive(Debug, Parser)]
#[command(
    name = "fairlead-certs",
    version,
    after_help = "\
Without a command it makes one pass.

Examples:
  systemctl start fairlead-certs.service
  fairlead-certs --state-dir ./state

Exit codes: 0 nothing failed in this pass, 1 a certificate could not be obtained."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) paths: Paths,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What becomes of the account at an ACME server
    #[command(
        subcommand,
        after_help = "\
Examples:
  runuser -u fairlead-certs -- fairlead-certs account roll-over
  runuser -u fairlead-certs -- fairlead-certs account deactivate --authority staging"
    )]
    Account(Account),
    /// Say to the authority that a certificate must not be trusted any more
    #[command(after_help = "\
In the name of our account, or by the certificate's own key if there is no account that may. The
next pass makes another certificate, with another key; until then the revoked one serves.

Examples:
  runuser -u fairlead-certs -- fairlead-certs revoke www.example.com
  runuser -u fairlead-certs -- fairlead-certs revoke www.example.com --reason key-compromise

Exit codes: 0 it is revoked, now or already, 1 it is not.")]
    Revoke {
        /// The name of the certificate, as `fairlead certs` lists it
        #[arg(value_parser = HostPattern::parse)]
        name: HostPattern,
        /// Why: unspecified, key-compromise, affiliation-changed, superseded or cessation-of-operation
        #[arg(long, value_enum, hide_possible_values = true, default_value_t = Reason::Unspecified)]
        reason: Reason,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Give the account a new key
    #[command(after_help = "\
The old key is worth nothing afterwards. If this is cut short, the next pass finds out which of the
two holds.

Examples:
  runuser -u fairlead-certs -- fairlead-certs account roll-over
  runuser -u fairlead-certs -- fairlead-certs account roll-over --authority staging

Exit codes: 0 the account has a new key, 1 it has not, or it is for the next pass to find out.")]
    RollOver(Server),
    /// Give the account up, for ever
    #[command(after_help = "\
Its certificates hold as long as they would. Nothing is ordered from the server before you remove
the account's file, which is named then; a new account is registered after that.

Examples:
  runuser -u fairlead-certs -- fairlead-certs account deactivate
  runuser -u fairlead-certs -- fairlead-certs account deactivate --authority staging

Exit codes: 0 it is deactivated, 1 it is not.")]
    Deactivate(Server),
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The server of [authority.NAME] instead of that of [acme]
    #[arg(long, value_name = "NAME", value_parser = AuthorityName::parse)]
    pub(crate) authority: Option<AuthorityName>,
}

/// Why a certificate is revoked (RFC 5280 5.3.1): those that a subscriber may say.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
}
