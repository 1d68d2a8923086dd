//! Open connections: what each one waits for, how long it may, and which one is closed if there is no room.

mod conn;
mod pace;
mod registry;
mod stream;

pub use conn::{Conn, Cut, Patience};
pub use pace::Rule;
pub use registry::{Caps, Place, Registry};
pub use stream::{Alarm, Watched};
