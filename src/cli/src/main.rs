use std::process::ExitCode;

fn main() -> ExitCode {
    fairlead::main()
}
