use std::process::ExitCode;

use mimalloc::MiMalloc;

/// An exchange of HTTP takes a tenth less time with it than with the allocator of the C library, one of HTTP/2 a sixth.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fairlead_proxy::main()
}
