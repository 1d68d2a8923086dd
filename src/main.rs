//! The `triptych` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else: the child must be sandboxed before threads or files exist.
    if args.next().is_some_and(|first| first == "decode-worker") {
        return triptych::cli::decode_worker::main(args);
    }
    triptych::cli::main()
}
