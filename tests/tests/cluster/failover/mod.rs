//! Game nodes as processes that are killed, stopped for a while and cut off, and where what they ran
//! goes on.
//!
//! What is true is what the nodes wrote themselves ([`ledger`]); what the registry says
//! is compared with it when all has come to rest.

mod balance;
mod cuts;
mod drains;
mod kills;
mod leaders;
mod ledger;
mod many;
mod node;
mod pauses;
mod proof;
mod stage;
