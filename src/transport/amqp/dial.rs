//! Connecting: host by host, bounded, with TLS where asked for.

use super::refusal::{Refusal, explain, refusal, words};
use super::tls::Tls;
use super::wire::{Cut, Wire};
use crate::error::{Error, ErrorKind};
use crate::transport::Secret;
use async_compat::{Compat, CompatExt};
use lapin::auth::AuthProvider;
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::TcpStream;

/// One try at one host may take so long: the client library's own time-out does not hold in its asynchronous path.
const TRY_LIMIT: Duration = Duration::from_secs(10);

type Stream = AsyncTcpStream<Compat<TcpStream>>;

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Tried in turn, from a random one on.
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) vhost: String,
    pub(super) user: String,
    pub(super) password: Secret,
    /// SASL external: the client's certificate says who it is.
    pub(super) external: bool,
    pub(super) tls: Option<Tls>,
    pub(super) heartbeat: Duration,
}

impl Server {
    /// Connects to one of the hosts, under a name that the broker shows. Not cancel-safe in what it leaves behind: a
    /// dropped call closes its socket, and the client library's thread ends by that.
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`] for password, vhost, certificate; [`ErrorKind::Unreachable`] for the rest.
    pub(super) async fn dial(&self, name: &str) -> Result<Wire, Error> {
        let first = fastrand::usize(..self.hosts.len().max(1));
        let mut failed = None;
        for (host, port) in self.hosts.iter().cycle().skip(first).take(self.hosts.len()) {
            let tried = tokio::time::timeout(TRY_LIMIT, self.dial_one(host, *port, name)).await;
            let error = match tried {
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(error)) => error,
                Err(_) => unreachable(format!("no answer within {} s", TRY_LIMIT.as_secs())),
            };
            let error = error.of(format_args!("broker {host}:{port}"));
            if error.kind() == ErrorKind::Credentials {
                return Err(error);
            }
            failed = Some(error);
        }
        Err(failed.unwrap_or_else(|| unreachable("no host is named".into())))
    }

    async fn dial_one(&self, host: &str, port: u16, name: &str) -> Result<Wire, Error> {
        let socket = TcpStream::connect((host, port)).await.map_err(|error| unreachable(error.to_string()))?;
        // Acks are small and must not wait for more of them.
        let _ = socket.set_nodelay(true);
        let cut = Cut::of(&socket).map_err(|error| unreachable(error.to_string()))?;
        let stream = Stream::Plain(socket.compat());
        let stream = match &self.tls {
            None => stream,
            Some(tls) => stream.into_rustls(&tls.connector()?, host).await.map_err(|error| untrusted(&error))?,
        };
        let runtime = async_rs::Runtime::tokio_current();
        let properties = ConnectionProperties::default().with_connection_name(name.into()).with_auth_provider(Login {
            user: self.user.clone(),
            password: self.password.clone(),
            external: self.external,
        });
        // Taken once: the client library's own recovery stays off.
        let once = Mutex::new(Some(stream));
        let connect = async move |_: AMQPUri, _: async_rs::TokioRuntime| {
            once.lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .take()
                .ok_or_else(|| std::io::Error::other("a socket is used once").into())
        };
        let connection = Connection::connector(self.uri(host, port), runtime, connect, properties)
            .await
            .map_err(|error| self.not_let_in(&error))?;
        Ok(Wire::new(connection, cut, format!("{host}:{port}")))
    }

    /// What the client library wants to know; the login is not in it.
    fn uri(&self, host: &str, port: u16) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: String::new(), password: String::new() },
                host: host.to_owned(),
                port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(self.heartbeat.as_secs().min(u64::from(u16::MAX)) as u16),
                ..AMQPQueryString::default()
            },
        }
    }

    fn not_let_in(&self, error: &lapin::Error) -> Error {
        match refusal(error) {
            Refusal::Access => {
                explain(format_args!("user '{}' was refused at vhost '{}'", self.user, self.vhost), error)
            }
            // Since TLS 1.3 a server refuses the client's certificate only after the handshake has ended.
            _ => match error.kind() {
                lapin::ErrorKind::IOError(io) if self.tls.is_some() => untrusted(io),
                _ => unreachable(words(error)),
            },
        }
    }
}

fn unreachable(text: String) -> Error {
    Error::new(ErrorKind::Unreachable, text)
}

/// A handshake that failed: by a certificate, which no patience mends, or by the connection.
fn untrusted(error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => ErrorKind::Credentials,
        _ => ErrorKind::Unreachable,
    };
    Error::new(kind, format!("TLS: {error}"))
}

/// Says who we are. The client library's URI would print a password in its `Debug`.
struct Login {
    user: String,
    password: Secret,
    external: bool,
}

impl AuthProvider for Login {
    fn mechanism(&self) -> ShortString {
        if self.external { "EXTERNAL" } else { "PLAIN" }.into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        if self.external {
            return Ok("".into());
        }
        Ok(format!("\0{}\0{}", self.user, self.password.reveal()).into())
    }
}
