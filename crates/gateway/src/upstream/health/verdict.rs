//! How one check of one endpoint stands: how many results in a row change it.

use super::Check;

/// Healthy or not, and the results in a row that say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `None` before the first result.
    healthy: Option<bool>,
    against: u32,
}

impl Verdict {
    /// Returns whether requests may go there; not before the first result.
    pub(super) fn is_healthy(self) -> bool {
        self.healthy == Some(true)
    }

    /// Goes on after a result. The first one decides at once.
    pub(super) fn after(self, well: bool, rules: &Check) -> Self {
        let decided = |healthy| Verdict {
            healthy: Some(healthy),
            against: 0,
        };
        let Some(healthy) = self.healthy else {
            return decided(well);
        };
        if well == healthy {
            return decided(healthy);
        }
        let against = self.against + 1;
        let threshold = match well {
            true => rules.healthy_threshold,
            false => rules.unhealthy_threshold,
        };
        match against >= threshold {
            true => decided(well),
            false => Verdict { against, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Probe;
    use super::*;

    /// Shows the state after each result: `+` is a pass.
    #[track_caller]
    fn check(results: &str, expected: &str) {
        let rules = Check {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            probe: Probe::Tcp,
        };
        let mut verdict = Verdict::default();
        assert!(!verdict.is_healthy(), "not before the first result");
        let states = results.chars().map(|result| {
            verdict = verdict.after(result == '+', &rules);
            if verdict.is_healthy() { 'h' } else { 'u' }
        });
        assert_eq!(states.collect::<String>(), expected, "{results}");
    }

    #[test]
    fn the_first_result_decides_and_then_so_many_in_a_row() {
        check("+", "h");
        check("-", "u");
        check("+--+---", "hhhhhhu");
        check("-+-++--", "uuuuhhh");
        check("----", "uuuu");
    }
}
