//! Fuzzing without a fuzzer: a target runs over a corpus, then over random changes of it, for as long as there is time.
//!
//! It sees no coverage, so that it finds less than `cargo xtask fuzz` does in the same time; but it needs no special build, and
//! so runs with every test. The same functions are targets of both.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

/// Milliseconds that each target gets.
const TIME: &str = "NUNCIO_FUZZ_MS";
/// A number that makes a run the same again.
const SEED: &str = "NUNCIO_FUZZ_SEED";
/// What a target gets where nothing is said: enough for an obvious defect, and nobody waits for it.
const TIME_DEFAULT: Duration = Duration::from_millis(500);
/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 4 << 10;
/// Inputs that are kept to be changed further.
const KEPT_MAX: usize = 500;

/// Runs `target` over each file in `corpus` (`fuzz/corpus/NAME` by its path), then over changes of them.
///
/// `words` are pieces that stand in inputs often; without them, random bytes seldom make sense to a parser.
///
/// # Panics
/// When the target does; the input and the seed are printed.
#[track_caller]
pub fn run(corpus: &Path, words: &[&str], target: fn(&[u8])) {
    let mut inputs = vec![Vec::new()];
    for file in fs::read_dir(corpus).expect("the corpus is there").flatten() {
        inputs.push(fs::read(file.path()).expect("a file of the corpus is readable"));
    }
    assert!(inputs.len() > 1, "{} is empty", corpus.display());
    inputs.sort();
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number(SEED).unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let time = number(TIME).map_or(TIME_DEFAULT, Duration::from_millis);
    for input in &inputs {
        attempt(target, input, seed);
    }
    let mut random = Random(seed | 1);
    let end = Instant::now() + time;
    let mut count = inputs.len();
    while Instant::now() < end {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..1 + random.below(6) {
            change(&mut input, &inputs, words, &mut random);
        }
        input.truncate(INPUT_BYTES_MAX);
        attempt(target, &input, seed);
        count += 1;
        if random.below(8) == 0 {
            match inputs.len() < KEPT_MAX {
                true => inputs.push(input),
                false => {
                    let place = random.below(KEPT_MAX);
                    inputs[place] = input;
                }
            }
        }
    }
    println!("{}: {count} inputs, seed {seed}", corpus.display());
}

#[track_caller]
fn attempt(target: fn(&[u8]), input: &[u8], seed: u64) {
    if let Err(reason) = panic::catch_unwind(AssertUnwindSafe(|| target(input))) {
        println!("seed {seed}, input: b\"{}\"", input.escape_ascii());
        panic::resume_unwind(reason);
    }
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let to = (at + random.below(32)).min(input.len());
    match random.below(7) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.below(256) as u8,
        2 => drop(input.drain(at..to)),
        3 => {
            let again = input[at..to].to_vec();
            input.splice(at..at, again);
        }
        4 => {
            let other = &inputs[random.below(inputs.len())];
            let from = random.below(other.len() + 1);
            let piece = &other[from..(from + random.below(64)).min(other.len())];
            input.splice(at..to, piece.iter().copied());
        }
        5 if !words.is_empty() => {
            let word = words[random.below(words.len())];
            input.splice(at..at, word.bytes());
        }
        _ => {
            let count = 1 + random.below(8);
            input.splice(at..at, (0..count).map(|_| random.below(256) as u8));
        }
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
