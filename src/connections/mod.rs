//! Open connections: the loop that accepts them, what each one waits for, how long it may, and which one is closed if
//! there is no room.

mod conn;
mod pace;
mod registry;
mod server;
mod stream;

pub use conn::{Conn, Cut, Patience};
pub use pace::Rule;
pub use server::{Limits, PeerAddr, run};
pub use stream::Alarm;
