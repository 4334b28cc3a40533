//! A log file that is reopened on request, so that it can be rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines to write.
    pub buffer: Vec<u8>,
}

impl LogFile {
    pub fn open(path: PathBuf) -> io::Result<LogFile> {
        Ok(LogFile { file: append(&path)?, path, buffer: Vec::new() })
    }

    /// On an error the old file stays open.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }

    /// Writes and clears the buffer, even on an error: a full disk must not fill the memory.
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
