//! The serial line: raw, whole lines only, one writer at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

pub(crate) struct Console {
    reader: Mutex<BufReader<File>>,
    writer: Mutex<File>,
}

impl Console {
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        make_raw(&file)?;
        Ok(Self { writer: Mutex::new(file.try_clone()?), reader: Mutex::new(BufReader::new(file)) })
    }

    /// Writes one line in one system call, so that ticks and answers never mix.
    pub(crate) fn line(&self, text: &str) {
        let mut file = self.writer.lock().expect("no writer panics");
        let _ = file.write_all(format!("{text}\n").as_bytes());
    }

    pub(crate) fn read_line(&self) -> Option<String> {
        let mut line = String::new();
        match self.reader.lock().expect("one reader").read_line(&mut line) {
            Ok(n) if n > 0 => Some(line),
            _ => None,
        }
    }
}

fn make_raw(file: &File) -> io::Result<()> {
    // SAFETY: termios is plain data, and the descriptor is open for the length of both calls.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(file.as_raw_fd(), &mut settings) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::cfmakeraw(&mut settings);
        if libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &settings) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
