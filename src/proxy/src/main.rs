use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    fairlead_proxy::main()
}
