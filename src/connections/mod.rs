//! Open connections: the loop that accepts them, the state and time limits of each, and the choice of the one
//! to close when there is no room.

mod conn;
mod pace;
mod registry;
mod server;
mod stream;

pub use conn::{Conn, Cut, Patience};
pub use pace::Rule;
pub use server::{Limits, PeerAddr, run};
pub use stream::Alarm;
