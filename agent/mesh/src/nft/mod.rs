//! nftables: the program `nft`, and a table of ours that is kept as it should be.

mod changes;
mod program;
mod table;

pub use program::{NftError, has_nft, quoted};
pub use table::NftTable;
