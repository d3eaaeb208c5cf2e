//! Envoy's response flags: what was special about a request, in two or three letters that its users know from their
//! access lines.

use std::fmt;

/// A set of response flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$told:meta])* $name:ident $long:literal = $bit:literal;)*) => {
        impl Flags {
            $($(#[$told])* pub const $name: Flags = Flags(1 << $bit);)*
        }

        /// Every flag, its letters and its long name, in Envoy's order.
        const ALL: &[(Flags, &str, &str)] = &[$((Flags::$name, stringify!($name), $long)),*];
    };
}

flags! {
    /// No endpoint of the service is healthy, or there is none.
    UH "NoHealthyUpstream" = 0;
    /// The upstream took longer than the route allows.
    UT "UpstreamRequestTimeout" = 1;
    /// This side reset the connection or stream.
    LR "LocalReset" = 2;
    /// The upstream reset the stream.
    UR "UpstreamRemoteReset" = 3;
    /// No connection to the upstream could be made.
    UF "UpstreamConnectionFailure" = 4;
    /// The upstream ended the connection.
    UC "UpstreamConnectionTermination" = 5;
    /// A circuit breaker is open.
    UO "UpstreamOverflow" = 6;
    /// No route matches.
    NR "NoRouteFound" = 7;
    /// A request limit is reached.
    RL "RateLimited" = 8;
    /// Somebody who decides who may ask has said no.
    UAEX "UnauthorizedExternalService" = 9;
    /// The rate limit service failed.
    RLSE "RateLimitServiceError" = 10;
    /// The client ended the connection.
    DC "DownstreamConnectionTermination" = 11;
    /// No more retries are left.
    URX "UpstreamRetryLimitExceeded" = 12;
    /// Nothing moved for too long.
    SI "StreamIdleTimeout" = 13;
    /// A header that steers the gateway has a value that it must not have.
    IH "InvalidEnvoyRequestHeaders" = 14;
    /// The client broke the rules of HTTP.
    DPE "DownstreamProtocolError" = 15;
    /// The upstream stream was open for too long.
    UMSDR "UpstreamMaxStreamDurationReached" = 16;
    /// A filter's configuration is missing.
    NFCF "NoFilterConfigFound" = 17;
    /// The request or its connection lasted too long.
    DT "DurationTimeout" = 18;
    /// The upstream broke the rules of HTTP.
    UPE "UpstreamProtocolError" = 19;
    /// The route's service cannot be had.
    NC "NoClusterFound" = 20;
    /// The process is short of a resource.
    OM "OverloadManagerTerminated" = 21;
    /// The service's name could not be looked up.
    DF "DnsResolutionFailed" = 22;
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Returns both together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Returns whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether none is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the long names, with commas between them; `-` when there is none (`%RESPONSE_FLAGS_LONG%`).
    pub fn long(self) -> String {
        let names: Vec<&str> = ALL
            .iter()
            .filter(|(flag, ..)| self.contains(*flag))
            .map(|(_, _, long)| *long)
            .collect();
        match names.is_empty() {
            true => "-".to_owned(),
            false => names.join(","),
        }
    }
}

/// The letters, with commas between them; `-` when there is none (`%RESPONSE_FLAGS%`).
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut comma = "";
        for (_, letters, _) in ALL.iter().filter(|(flag, ..)| self.contains(*flag)) {
            f.write_str(comma)?;
            f.write_str(letters)?;
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_in_envoys_order() {
        assert_eq!(Flags::NONE.to_string(), "-");
        assert_eq!(Flags::URX.with(Flags::UF).to_string(), "UF,URX");
        assert_eq!(Flags::NR.long(), "NoRouteFound");
        assert!(Flags::URX.with(Flags::UF).contains(Flags::UF));
        assert!(!Flags::UF.contains(Flags::URX));
    }

    #[test]
    fn no_two_flags_are_the_same() {
        let mut seen = Flags::NONE;
        for (flag, letters, _) in ALL {
            assert!(!seen.contains(*flag), "{letters}");
            seen = seen.with(*flag);
        }
    }
}
