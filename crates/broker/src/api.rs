//! What each API does: a decoded request in, a response out. One file a family.

pub(crate) mod acls;
pub(crate) mod commits;
pub(crate) mod configs;
pub(crate) mod consumers;
pub(crate) mod describe;
pub(crate) mod features;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod log_dirs;
pub(crate) mod metadata;
pub(crate) mod moves;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod quorum;
pub(crate) mod quotas;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod share_acks;
pub(crate) mod share_fetch;
pub(crate) mod share_groups;
pub(crate) mod streams_groups;
pub(crate) mod topics;
pub(crate) mod transactions;
pub(crate) mod users;
pub(crate) mod versions;
