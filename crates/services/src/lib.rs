//! Starts, watches and stops the user's services for nuncio up.
