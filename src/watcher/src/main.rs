use std::process::ExitCode;

fn main() -> ExitCode {
    fairlead_watcher::main()
}
