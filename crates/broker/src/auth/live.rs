//! Other users and super users, while the broker runs.

use std::io;

use tokio::task::spawn_blocking;

use super::User;
use crate::access::Authorization;
use crate::{Broker, auth::users::Users};

impl Broker {
    /// Takes these users of the configuration in place of those that it had. Connections that are open stay what they are until
    /// they have to prove again who they are. Credentials that were stored over the protocol are not touched.
    ///
    /// # Errors
    /// When the system has no random numbers for salts; everything stays as it was then.
    pub async fn change_users(&self, users: Vec<User>) -> io::Result<()> {
        let known = self.core.users.clone();
        let changing = spawn_blocking(move || Users::change(&known, &users));
        changing.await.map_err(io::Error::other)?
    }

    /// Takes other super users, and another answer to what no rule speaks of; both hold from the next request on. Returns
    /// whether that was possible: a broker cannot begin or end to ask for rights while it runs.
    pub fn change_authorization(&self, authorization: Option<&Authorization>) -> bool {
        match (&self.core.access, authorization) {
            (Some(access), Some(settings)) => {
                access.change(settings);
                true
            }
            (None, None) => true,
            _ => false,
        }
    }
}
