//! What was measured, as a table.

/// One line of the result: what each broker reached in every repetition.
struct Line {
    what: String,
    unit: &'static str,
    aim: Aim,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// Which way is better, and how far we must be from Apache Kafka.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Aim {
    /// At least so many times theirs.
    Times(f64),
    /// At most this share of theirs.
    Share(f64),
    /// At most this, whatever theirs is.
    Most(f64),
    /// For orientation.
    None,
}

/// Lines in the order in which they were first told.
#[derive(Default)]
pub(super) struct Table {
    lines: Vec<Line>,
    facts: Vec<(String, &'static str, f64)>,
    skipped: Vec<String>,
    /// CPU seconds of strangers, and seconds measured.
    foreign: (f64, f64),
}

impl Table {
    /// Adds what one of the brokers reached in one repetition.
    pub(super) fn tell(
        &mut self,
        what: &str,
        unit: &'static str,
        aim: Aim,
        is_ours: bool,
        value: f64,
    ) {
        let known = self
            .lines
            .iter()
            .position(|line| line.what == what && line.unit == unit);
        let at = known.unwrap_or_else(|| {
            self.lines.push(Line {
                what: what.to_owned(),
                unit,
                aim,
                ours: Vec::new(),
                theirs: Vec::new(),
            });
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        let side = if is_ours {
            &mut line.ours
        } else {
            &mut line.theirs
        };
        side.push(value);
    }

    /// Adds what the machine reaches.
    pub(super) fn fact(&mut self, what: &str, unit: &'static str, value: f64) {
        self.facts.push((what.to_owned(), unit, value));
    }

    /// Notes the load of strangers while something was measured.
    pub(super) fn foreign(&mut self, cpu: f64, seconds: f64) {
        self.foreign.0 += cpu;
        self.foreign.1 += seconds;
    }

    /// Notes why something is not in the table.
    pub(super) fn skip(&mut self, what: &str, why: &str) {
        eprintln!("{what}: {why}");
        self.skipped.push(format!("{what}: {why}"));
    }

    pub(super) fn print(&self) {
        if !self.facts.is_empty() {
            println!("| the machine | unit | |\n|---|---|---:|");
            for (what, unit, value) in &self.facts {
                println!("| {what} | {unit} | {} |", short(*value));
            }
            println!();
        }
        if !self.lines.is_empty() {
            println!("| what | unit | Nuncio | Apache Kafka | ratio | bar | |");
            println!("|---|---|---:|---:|---:|---:|---|");
        }
        for line in &self.lines {
            let (ours, theirs) = (median(&line.ours), median(&line.theirs));
            let ratio = ours / theirs;
            let told = |value: f64| match value.is_nan() {
                true => "-".to_owned(),
                false => short(value),
            };
            let (bar, held) = match line.aim {
                Aim::Times(times) => (format!("≥ {times}"), ratio.is_nan() || ratio >= times),
                Aim::Share(share) => (format!("≤ {share}"), ratio.is_nan() || ratio <= share),
                Aim::Most(most) => (format!("{most} {}", line.unit), ours <= most),
                Aim::None => ("-".to_owned(), true),
            };
            let ratio = match ratio.is_nan() {
                true => "-".to_owned(),
                false => format!("{ratio:.2}"),
            };
            println!(
                "| {} | {} | {} | {} | {ratio} | {bar} | {} |",
                line.what,
                line.unit,
                told(ours),
                told(theirs),
                if held { "" } else { "missed" }
            );
        }
        for skipped in &self.skipped {
            println!("\nnot measured: {skipped}");
        }
        let (cpu, seconds) = self.foreign;
        if seconds > 0.0 {
            let share = cpu / seconds;
            println!("\nOther processes used {share:.2} cores while it was measured.");
        }
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        more if more >= 100.0 => format!("{value:.0}"),
        more if more >= 10.0 => format!("{value:.1}"),
        more if more >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Returns the value in the middle, `NaN` of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
