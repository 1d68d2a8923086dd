//! Opens the store of a data folder with all acknowledged changes: compares it with the ledger, and rebuilds
//! lost data.

mod opened_store;
mod rebuild;
mod witness;

pub(crate) use opened_store::adopt_uploads;
pub(super) use opened_store::{make_private_folder, open_closed, open_model_store};
pub(super) use witness::{Opened, open_store, put, write};
