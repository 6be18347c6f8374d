//! One connection to one broker: requests and their answers, one after the other.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rdkafka::types::RDKafkaErrorCode;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::endpoint::{Address, Endpoint};
use super::login::{LoginError, Mechanism, Scram, User, plain};
use crate::kafka::admin::{AdminError, Requests, failure};
use crate::kafka::lock;

/// Largest answer that is taken: something else than Kafka may be at the address, and its words are no lengths.
const LARGEST: usize = 64 << 20;

/// Versions of the requests that log in.
const HANDSHAKE: i16 = 1;
const AUTHENTICATE: i16 = 1;

/// A connection that must log in again (KIP-368) is given up when so much of its time is over.
const SESSION_SHARE: f64 = 0.8;

/// How many requests were sent, by name; shared with the librdkafka client.
pub type Sent = Arc<Mutex<Requests>>;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection that is logged in.
pub struct Connection {
    wire: Box<dyn Wire>,
    address: Address,
    client_id: StrBytes,
    correlation: i32,
    /// When the broker wants a new login.
    ends: Option<Instant>,
    sent: Sent,
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(endpoint: &Endpoint, address: &Address, sent: &Sent) -> Result<Self, AdminError> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await;
        let tcp = tcp.map_err(|error| away(address, &error))?;
        tcp.set_nodelay(true).map_err(|error| away(address, &error))?;
        let wire: Box<dyn Wire> = match &endpoint.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|error| AdminError::Authentication(format!("{address}: {error}")))?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
                Box::new(stream.map_err(|error| untrusted(address, &error))?)
            }
        };
        let mut connection = Self {
            wire,
            address: address.clone(),
            client_id: StrBytes::from_string(endpoint.client_id.clone()),
            correlation: 0,
            ends: None,
            sent: Arc::clone(sent),
        };
        if let Some(user) = &endpoint.user {
            connection.log_in(user).await?;
        }
        Ok(connection)
    }

    /// Whether it may still be used.
    pub fn is_fresh(&self) -> bool {
        self.ends.is_none_or(|ends| Instant::now() < ends)
    }

    /// Sends a request and waits for its answer. After an error, or when nobody waits for the answer any more, the connection is
    /// of no more use.
    pub async fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, AdminError> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = self.frame(request, version)?;
        self.count::<R>();
        let answer = self.exchange(&frame).await.map_err(|error| away(&self.address, &error))?;
        let mut answer = answer.ok_or_else(|| self.not_kafka())?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        let header = header.map_err(|_| self.not_kafka())?;
        if header.correlation_id != self.correlation {
            return Err(self.not_kafka());
        }
        R::Response::decode(&mut answer, version).map_err(|_| self.not_kafka())
    }

    fn frame<R: Request>(&self, request: &R, version: i16) -> Result<BytesMut, AdminError> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut body = BytesMut::new();
        let encoded =
            header.encode(&mut body, R::header_version(version)).and_then(|()| request.encode(&mut body, version));
        let length = i32::try_from(body.len()).ok().filter(|_| encoded.is_ok());
        let length = length.ok_or_else(|| AdminError::InvalidArgument {
            what: "request",
            value: String::new(),
            reason: encoded.err().map_or_else(|| "it is too large".to_owned(), |error| error.to_string()),
        })?;
        let mut frame = BytesMut::with_capacity(body.len() + size_of::<i32>());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&body);
        Ok(frame)
    }

    /// None: what came is no frame.
    async fn exchange(&mut self, frame: &[u8]) -> std::io::Result<Option<Bytes>> {
        self.wire.write_all(frame).await?;
        self.wire.flush().await?;
        let length = self.wire.read_i32().await?;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= LARGEST) else { return Ok(None) };
        let mut answer = BytesMut::zeroed(length);
        self.wire.read_exact(&mut answer).await?;
        Ok(Some(answer.freeze()))
    }

    fn count<R: Request>(&self) {
        let name = ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"));
        *lock(&self.sent).entry(name).or_default() += 1;
    }

    fn not_kafka(&self) -> AdminError {
        let message = format!("what {} answers is not Kafka's protocol", self.address);
        AdminError::from_code(RDKafkaErrorCode::BadMessage, &message)
    }

    async fn log_in(&mut self, user: &User) -> Result<(), AdminError> {
        let mechanism = StrBytes::from_static_str(user.mechanism.as_str());
        let offered = self.ask(&SaslHandshakeRequest::default().with_mechanism(mechanism), HANDSHAKE).await?;
        if offered.error_code != 0 {
            let offered: Vec<&str> = offered.mechanisms.iter().map(StrBytes::as_str).collect();
            let (wanted, offered) = (user.mechanism.as_str(), offered.join(", "));
            return Err(AdminError::Authentication(format!("{wanted} is not offered by the broker, but {offered}")));
        }
        let last = match user.mechanism {
            Mechanism::Plain => self.say(plain(user)).await?,
            Mechanism::ScramSha512 => {
                let scram = Scram::new(user, nonce()?);
                let challenge = self.say(scram.first()).await?;
                let (proof, proven) = scram.prove(user, &challenge.auth_bytes).map_err(|error| refused(&error))?;
                let last = self.say(proof).await?;
                proven.verify(&last.auth_bytes).map_err(|error| refused(&error))?;
                last
            }
        };
        let lifetime = u64::try_from(last.session_lifetime_ms).ok().filter(|lifetime| *lifetime > 0);
        self.ends = lifetime.map(|lifetime| Instant::now() + Duration::from_millis(lifetime).mul_f64(SESSION_SHARE));
        Ok(())
    }

    async fn say(&mut self, message: Vec<u8>) -> Result<SaslAuthenticateResponse, AdminError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = self.ask(&request, AUTHENTICATE).await?;
        failure(answer.error_code.into(), answer.error_message.as_deref().unwrap_or_default())?;
        Ok(answer)
    }
}

fn nonce() -> Result<String, AdminError> {
    let mut random = [0; 24];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| AdminError::Client("the system gives no random numbers".to_owned()))?;
    Ok(STANDARD_NO_PAD.encode(random))
}

fn refused(error: &LoginError) -> AdminError {
    AdminError::Authentication(error.to_string())
}

fn away(address: &Address, error: &std::io::Error) -> AdminError {
    AdminError::from_code(RDKafkaErrorCode::BrokerTransportFailure, &format!("{address}: {error}"))
}

/// What came of a TLS handshake: a certificate that is not trusted is for people, a broken connection for later.
fn untrusted(address: &Address, error: &std::io::Error) -> AdminError {
    if error.kind() == ErrorKind::InvalidData {
        return AdminError::from_code(RDKafkaErrorCode::SSL, &format!("{address}: {error}"));
    }
    away(address, error)
}
