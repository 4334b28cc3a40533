//! A TCP or a Unix stream, as one type.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn raw(&self) -> SockRef<'_> {
        match self {
            Socket::Tcp(stream) => SockRef::from(stream),
            Socket::Unix(stream) => SockRef::from(stream),
        }
    }

    /// Our own port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Socket::Tcp(stream) => stream.local_addr().map_or(0, |address| address.port()),
            Socket::Unix(_) => 0,
        }
    }

    pub fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
        })
    }

    /// Waits until there is something to read, or the end, without taking it.
    pub fn wait_readable(&self) -> io::Result<()> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        self.raw().peek(&mut byte).map(drop)
    }

    /// Whether something has arrived that nobody has read.
    pub fn has_unread(&self) -> bool {
        const MSG_PEEK: i32 = 2;
        const MSG_DONTWAIT: i32 = 0x40;
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(self.raw().recv_with_flags(&mut byte, MSG_PEEK | MSG_DONTWAIT), Ok(n) if n > 0)
    }

    pub fn shutdown(&self, how: Shutdown) {
        // Fails only on a socket that is gone already.
        let _ = self.raw().shutdown(how);
    }

    /// Lets the coming close send a reset. A Unix socket knows none: it just closes.
    pub fn reset_on_close(&self) {
        if let Socket::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    pub fn set_timeouts(&self, limit: Duration) {
        let _ = self.raw().set_read_timeout(Some(limit));
        let _ = self.raw().set_write_timeout(Some(limit));
    }

    pub fn set_receive_buffer(&self, size: usize) {
        let _ = self.raw().set_recv_buffer_size(size);
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
