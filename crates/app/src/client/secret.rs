//! A password that the user gives: in a file, on the standard input, or typed without being shown.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Reads a new password. Where no file is named it is typed twice, or is the first line of the standard input.
pub(crate) fn new_password(file: Option<&Path>) -> anyhow::Result<String> {
    let password = match file {
        Some(file) if file != Path::new("-") => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("could not read `{}`", file.display()))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if io::stdin().is_terminal() => typed_twice()?,
        _ => {
            let mut line = String::new();
            let input = io::stdin().lock();
            let mut input = io::BufReader::new(input.take(PASSWORD_BYTES_MAX));
            input
                .read_line(&mut line)
                .context("could not read the password from the standard input")?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if password.is_empty() {
        bail!("a password of no characters");
    }
    Ok(password)
}

fn typed_twice() -> anyhow::Result<String> {
    let first = typed("New password: ")?;
    if typed("The same again: ")? != first {
        bail!("the two are not the same; nothing is changed");
    }
    Ok(first)
}

/// Puts the terminal back as it was, whatever happens.
struct Hidden(Termios);

impl Hidden {
    fn new() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("could not ask the terminal")?;
        let mut hidden = before.clone();
        // Byte by byte, so that an interruption is ours to see and the echo comes back.
        hidden
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)
            .context("the terminal shows what is typed; use a file")?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
        _ = writeln!(io::stderr());
    }
}

fn typed(prompt: &str) -> anyhow::Result<String> {
    let _hidden = Hidden::new()?;
    let mut told = io::stderr();
    write!(told, "{prompt}")?;
    told.flush()?;
    let typed = line_of(io::stdin().lock().bytes())?;
    String::from_utf8(typed).context("a password that is not text")
}

/// Reads what is typed until the end of the line.
fn line_of(bytes: impl Iterator<Item = io::Result<u8>>) -> anyhow::Result<Vec<u8>> {
    let mut line: Vec<u8> = Vec::new();
    for byte in bytes.take(PASSWORD_BYTES_MAX as usize) {
        match byte? {
            b'\r' | b'\n' => return Ok(line),
            // Interrupt, end, quit.
            3 | 4 | 28 => bail!("interrupted; nothing is changed"),
            // The last character, of whatever length.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
            // The whole line.
            21 => line.clear(),
            byte => line.push(byte),
        }
    }
    bail!("the password has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(typed: &str) -> Option<String> {
        let bytes = typed.bytes().map(Ok);
        line_of(bytes)
            .ok()
            .map(|line| String::from_utf8(line).expect("text"))
    }

    #[test]
    fn what_is_typed_can_be_corrected_and_interrupted() {
        assert_eq!(line("secret\n").as_deref(), Some("secret"));
        assert_eq!(line("sé\u{7f}e\u{8}\u{8}\u{8}x\r").as_deref(), Some("x"));
        assert_eq!(line("wrong\u{15}right\n").as_deref(), Some("right"));
        assert_eq!(line("se\u{3}cret\n"), None);
        assert_eq!(line("never ends"), None);
    }
}
