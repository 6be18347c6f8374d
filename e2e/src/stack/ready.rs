//! When a part counts as ready: cheap checks that need no client library, and can be written in a file.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::{Deserialize, Serialize};

use super::command;

const PATIENCE: Duration = Duration::from_secs(3);

/// A check that holds once the part can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// A TCP port is open.
    Tcp(SocketAddr),
    /// A plain HTTP GET answers 200.
    Http {
        /// Where.
        address: SocketAddr,
        /// Path of the request.
        path: String,
    },
    /// An HTTPS GET answers 200.
    Https {
        /// Where.
        address: SocketAddr,
        /// Path of the request.
        path: String,
        /// The authority that signed the server's certificate.
        ca_file: PathBuf,
    },
    /// A Unix socket takes connections.
    Unix(PathBuf),
    /// A Kafka broker answers on a plaintext listener and knows this many live brokers.
    Kafka {
        /// The listener.
        address: SocketAddr,
        /// Brokers in its metadata, at least.
        brokers: usize,
    },
    /// A program exits with 0.
    Command(Vec<String>),
}

impl Ready {
    /// Checks once; never longer than a few seconds.
    pub fn holds(&self) -> bool {
        match self {
            Self::Tcp(address) => TcpStream::connect_timeout(address, PATIENCE).is_ok(),
            Self::Http { address, path } => http_ok(*address, path).unwrap_or(false),
            Self::Https { address, path, ca_file } => https_ok(*address, path, ca_file).unwrap_or(false),
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
            Self::Kafka { address, brokers } => kafka_brokers(*address).is_some_and(|live| live >= *brokers),
            Self::Command(argv) => argv
                .split_first()
                .is_some_and(|(program, arguments)| command::succeeds(command::bounded(5, program).args(arguments))),
        }
    }
}

fn http_ok(address: SocketAddr, path: &str) -> std::io::Result<bool> {
    get(connect(address)?, address, path)
}

fn https_ok(address: SocketAddr, path: &str, ca_file: &Path) -> std::io::Result<bool> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(std::io::Error::other)? {
        roots.add(certificate.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::from(address.ip())).map_err(std::io::Error::other)?;
    get(StreamOwned::new(connection, connect(address)?), address, path)
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn get(mut stream: impl Read + Write, address: SocketAddr, path: &str) -> std::io::Result<bool> {
    // In one piece: a server that answers the first of several and closes would break the connection for the rest.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut head = [0u8; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b" 200"))
}

fn kafka_brokers(address: SocketAddr) -> Option<usize> {
    // librdkafka would wait its whole time-out for a port that nobody listens on.
    TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("log_level", "0")
        .create()
        .ok()?;
    let metadata = consumer.fetch_metadata(None, PATIENCE).ok()?;
    Some(metadata.brokers().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("one client");
            // All of it: what is closed with something unread is reset, and the answer may be lost.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut some = [0u8; 64];
                let read = stream.read(&mut some).expect("a request");
                assert!(read > 0, "cut short: {request:?}");
                request.extend(&some[..read]);
            }
            write!(stream, "HTTP/1.0 {status}\r\n\r\n").expect("written");
        });
        address
    }

    #[test]
    fn http_needs_200() {
        assert!(Ready::Http { address: answering("200 OK"), path: "/healthz".into() }.holds());
        assert!(!Ready::Http { address: answering("503 Unavailable"), path: "/healthz".into() }.holds());
    }

    #[test]
    fn a_closed_port_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        assert!(Ready::Tcp(address).holds());
        drop(listener);
        assert!(!Ready::Tcp(address).holds());
        assert!(!Ready::Kafka { address, brokers: 1 }.holds());
    }
}
