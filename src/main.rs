//! The `triptych` command.

use std::process::ExitCode;

use triptych::model::ADDRESS_SPACE_MIB;
use triptych::native::address_space_limit_bytes;

/// One allocator for everything in the process, ONNX Runtime and SQLite included, since it also provides `malloc`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else: the child must be sandboxed before threads or files exist.
    if args.next().is_some_and(|first| first == "decode-worker") {
        return triptych::cli::decode_worker::main(args);
    }
    // A thread that returns unused memory to the system after some seconds, also if nothing is allocated any more.
    // Without it the memory is returned later. Where the address space is too small for the server, starting that
    // thread can fail, and the allocator would try again and again.
    if address_space_limit_bytes().is_none_or(|limit_bytes| limit_bytes >> 20 >= ADDRESS_SPACE_MIB) {
        let _ = tikv_jemalloc_ctl::background_thread::write(true);
    }
    triptych::cli::main()
}
