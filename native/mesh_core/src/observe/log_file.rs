//! A log file that can be moved away: it is opened anew when told so, as with any log rotation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines that have not been written.
    pub buffer: Vec<u8>,
}

impl LogFile {
    pub fn open(path: PathBuf) -> io::Result<LogFile> {
        Ok(LogFile { file: append(&path)?, path, buffer: Vec::new() })
    }

    /// On an error the old file stays.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }

    /// Writes what is in the buffer, which is empty afterwards in any case: a full disk must not
    /// become full memory.
    pub fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        written
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
