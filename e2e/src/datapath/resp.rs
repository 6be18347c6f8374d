//! A Redis client of our own: blocking, one server, RESP2, with or without TLS. Small enough to be read in one go, and not
//! the client that the worker uses.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use secrecy::{ExposeSecret, SecretString};

use super::HarnessError;
use crate::stack::Redis;

/// Longest wait for one answer: a server on a busy machine, with a disk that is busy too, is slow and not away.
const PATIENCE: Duration = Duration::from_secs(20);
/// No reply of ours is larger; a length beyond it is a mistake of the parser.
const LONGEST: i64 = 512 << 20;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Status(String),
    /// `-ERR …`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// `$3 foo`; `None` = nil.
    Bulk(Option<Vec<u8>>),
    /// `*2 …`; `None` = nil.
    Array(Option<Vec<Reply>>),
}

impl Reply {
    /// The bytes of a bulk reply.
    pub fn bytes(self) -> Option<Vec<u8>> {
        if let Self::Bulk(bytes) = self { bytes } else { None }
    }

    /// Text of a bulk or status reply.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Status(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// A number, also if it is sent as text.
    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { self.text()?.parse().ok() }
    }

    /// The elements of an array.
    pub fn array(self) -> Option<Vec<Self>> {
        if let Self::Array(elements) = self { elements } else { None }
    }
}

/// What a connection needs beside the address.
#[derive(Debug, Clone)]
pub struct Access {
    username: String,
    password: SecretString,
    tls: Option<Arc<ClientConfig>>,
}

impl Access {
    /// As the stack's administrator.
    pub fn administrator(redis: &Redis) -> Result<Self, HarnessError> {
        let tls = match (redis.tls(), redis.ca_file()) {
            (false, _) => None,
            (true, None) => return Err(failure("", "TLS without a CA file is not supported here")),
            (true, Some(file)) => {
                let mut roots = RootCertStore::empty();
                let certificates = CertificateDer::pem_file_iter(file).map_err(|error| failure("", error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| failure("", error))?;
                    roots.add(certificate).map_err(|error| failure("", error))?;
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
                let builder = builder.map_err(|error| failure("", error))?;
                Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
            }
        };
        Ok(Self { username: redis.username().to_owned(), password: redis.password().clone(), tls })
    }

    /// As another user of the same servers.
    #[must_use]
    pub fn as_user(self, username: &str, password: &SecretString) -> Self {
        Self { username: username.to_owned(), password: password.clone(), ..self }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A connection to one server.
pub struct Connection {
    address: String,
    stream: BufReader<Stream>,
}

fn failure(address: &str, error: impl Into<Box<dyn std::error::Error>>) -> HarnessError {
    HarnessError::Redis { address: address.to_owned(), message: error.into().to_string() }
}

impl Connection {
    /// Connects and logs in.
    pub fn open(address: &str, access: &Access) -> Result<Self, HarnessError> {
        let socket: SocketAddr = address.parse().map_err(|error| failure(address, error))?;
        let stream = connect(socket, access).map_err(|error| failure(address, error))?;
        let mut connection = Self { address: address.to_owned(), stream: BufReader::new(stream) };
        connection.command(&[b"AUTH", access.username.as_bytes(), access.password.expose_secret().as_bytes()])?;
        Ok(connection)
    }

    /// One command; an error reply is an error.
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Reply, HarnessError> {
        self.send(words)?;
        self.receive()
    }

    /// Sends bytes that were written before, and reads this many bytes of reply without looking at them.
    pub fn raw(&mut self, commands: &[u8], reply_bytes: usize) -> Result<(), HarnessError> {
        let stream = self.stream.get_mut();
        let sent = stream.write_all(commands).and_then(|()| stream.flush());
        sent.map_err(|error| failure(&self.address, error))?;
        let mut reply = vec![0; reply_bytes];
        self.stream.read_exact(&mut reply).map_err(|error| failure(&self.address, error))?;
        if reply[0] == b'-' {
            return Err(failure(&self.address, String::from_utf8_lossy(&reply).into_owned()));
        }
        Ok(())
    }

    /// Sends a command whose reply [`Self::receive`] takes: a server that stands still meanwhile finds it when it goes on.
    pub fn send(&mut self, words: &[&[u8]]) -> Result<(), HarnessError> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        let stream = self.stream.get_mut();
        let sent = stream.write_all(&bytes).and_then(|()| stream.flush());
        sent.map_err(|error| failure(&self.address, error))
    }

    /// The reply of a command that was sent.
    pub fn receive(&mut self) -> Result<Reply, HarnessError> {
        match read_reply(&mut self.stream).map_err(|error| failure(&self.address, error))? {
            Reply::Error(message) => Err(failure(&self.address, message)),
            reply => Ok(reply),
        }
    }

    /// Several commands at once; error replies are in the list.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Reply>, HarnessError> {
        let mut bytes = Vec::new();
        for words in commands {
            encode(&mut bytes, words);
        }
        let stream = self.stream.get_mut();
        let sent = stream.write_all(&bytes).and_then(|()| stream.flush());
        sent.map_err(|error| failure(&self.address, error))?;
        let replies: io::Result<Vec<Reply>> = commands.iter().map(|_| read_reply(&mut self.stream)).collect();
        replies.map_err(|error| failure(&self.address, error))
    }
}

fn encode(bytes: &mut Vec<u8>, words: &[impl AsRef<[u8]>]) {
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}

fn connect(socket: SocketAddr, access: &Access) -> io::Result<Stream> {
    let stream = TcpStream::connect_timeout(&socket, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let Some(config) = &access.tls else { return Ok(Stream::Plain(stream)) };
    let name = ServerName::from(socket.ip());
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    Ok(Stream::Tls(Box::new(StreamOwned::new(connection, stream))))
}

fn read_line(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(line.to_owned())
}

fn read_reply(stream: &mut impl io::BufRead) -> io::Result<Reply> {
    let line = read_line(stream)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
    let number = || rest.parse::<i64>().ok().filter(|number| *number <= LONGEST).ok_or_else(strange);
    Ok(match kind {
        "+" => Reply::Status(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(rest.parse().map_err(|_| strange())?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Bulk(None),
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Bulk(Some(bytes))
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Reply::Array(None),
            Ok(length) => Reply::Array(Some((0..length).map(|_| read_reply(stream)).collect::<io::Result<_>>()?)),
        },
        _ => return Err(strange()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_reply() {
        let mut wire: &[u8] = b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nb\0\r\n$-1\r\n*-1\r\n";
        let reply = read_reply(&mut wire).expect("well formed");
        let wanted = vec![
            Reply::Status("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Integer(-7),
            Reply::Bulk(Some(b"a\r\nb\0".to_vec())),
            Reply::Bulk(None),
            Reply::Array(None),
        ];
        assert_eq!(reply, Reply::Array(Some(wanted)));
        assert!(wire.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_strange_is_an_error() {
        for wire in ["", "$5\r\nab", "?1\r\n", "$x\r\n", "*2\r\n:1\r\n", ":1"] {
            assert!(read_reply(&mut wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
