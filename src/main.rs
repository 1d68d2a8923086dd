//! The `triptych` command.
fn main() {}
