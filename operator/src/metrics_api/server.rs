//! IO: connections and requests, all of them bounded in number and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::access::Access;
use super::documents::{self, Answer, Refusal};
use super::route::{MetricQuery, Route, route};
use super::tls::Serving;
use crate::controller::context::Context;
use crate::sweep::oldest_known;

/// Connections at the same time; more wait to be accepted. The API servers of a cluster have a few.
const MAX_CONNECTIONS: usize = 64;
/// A handshake takes no longer, and so does a connection that nobody is believed on.
const STRANGER: Duration = Duration::from_secs(10);
/// A connection lives no longer: who is believed is looked at anew then.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Most headers of a request: each group of a user is one.
const MAX_HEADERS: usize = 512;
/// Most bytes of a request's head.
const MAX_HEAD: usize = 128 * 1024;
/// After an error of the listener, which is about the process (out of descriptors) and not about a connection.
const PAUSE: Duration = Duration::from_millis(200);

/// What all requests share.
struct Shared {
    ctx: Arc<Context>,
    access: Access,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, ctx: Arc<Context>, serving: watch::Receiver<Option<Arc<Serving>>>) {
    let shared = Arc::new(Shared { ctx, access: Access::default() });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Without certificates there is nothing to say.
        let Some(serving) = serving.borrow().clone() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connection(stream, &serving, &shared).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, serving: &Arc<Serving>, shared: &Arc<Shared>) {
    let accepted = timeout(STRANGER, TlsAcceptor::from(Arc::clone(&serving.config)).accept(stream)).await;
    let Ok(Ok(stream)) = accepted else {
        shared.ctx.metrics.external_metrics("no_handshake");
        return;
    };
    let subject: Option<Arc<[u8]>> = stream.get_ref().1.peer_certificates().and_then(subject);
    let age = if subject.is_some() { CONNECTION_AGE } else { STRANGER };
    let service = service_fn(|request: Request<Incoming>| {
        let subject = subject.clone();
        async move {
            let answer = answer(&request, subject.as_deref(), serving, shared).await;
            Ok::<_, Infallible>(response(answer, subject.is_none()))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    if timeout(age, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(STRANGER, connection).await;
    }
}

/// Subject of the certificate that TLS has checked.
fn subject(certificates: &[rustls::pki_types::CertificateDer<'_>]) -> Option<Arc<[u8]>> {
    let certificate = webpki::EndEntityCert::try_from(certificates.first()?).ok()?;
    Some(Arc::from(certificate.subject()))
}

async fn answer(request: &Request<Incoming>, subject: Option<&[u8]>, serving: &Serving, shared: &Shared) -> Answer {
    let header = |headers: &HeaderMap| {
        let all = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        all.collect::<Vec<_>>().join(",")
    };
    let uri = request.uri();
    let asked = route(request.method().as_str(), uri.path(), uri.query(), &header(request.headers()));
    let answered = decide(asked, request.headers(), subject, serving, shared).await;
    let label = answered.as_ref().map_or_else(|(refusal, _)| refusal.label(), |_| "ok");
    shared.ctx.metrics.external_metrics(label);
    answered.unwrap_or_else(|(refusal, message)| refusal.answer(&message))
}

/// What to answer. Health is for everybody, all else for whom the API server speaks for; the documents of discovery are
/// always the same and say nothing of anybody, so only metrics are asked about.
async fn decide(
    asked: Route,
    headers: &HeaderMap,
    subject: Option<&[u8]>,
    serving: &Serving,
    shared: &Shared,
) -> Result<Answer, (Refusal, String)> {
    let refuse = |refusal: Refusal, message: &str| Err((refusal, message.to_owned()));
    if asked == Route::Alive {
        return Ok(Answer { code: 200, body: "ok".into() });
    }
    let user = match serving.trust.identify(subject, headers) {
        Ok(user) => user,
        Err(error) => return refuse(Refusal::Unauthorized, &error.to_string()),
    };
    let query = match asked {
        Route::Metric(query) => query,
        Route::Groups => return Ok(documents::groups()),
        Route::Group => return Ok(documents::one_group()),
        Route::Alive | Route::Resources => return Ok(documents::resources()),
        Route::NotAcceptable => return refuse(Refusal::NotAcceptable, "aggregated discovery is not served"),
        Route::NotFound => return refuse(Refusal::NotFound, "there is no such path or metric"),
        Route::MethodNotAllowed => return refuse(Refusal::MethodNotAllowed, "metrics can only be read"),
        Route::Bad(message) => return refuse(Refusal::BadRequest, &message),
    };
    match shared.access.may_read(&shared.ctx.client, &user, &query).await {
        Ok(true) => values(&query, &shared.ctx),
        Ok(false) => {
            let message = format!(
                "user {:?} may not list {}.external.metrics.k8s.io in namespace {:?}",
                user.name, query.metric, query.namespace
            );
            refuse(Refusal::Forbidden, &message)
        }
        Err(error) => {
            tracing::warn!(%error, "access to external metrics could not be reviewed");
            refuse(Refusal::Unavailable, "access could not be reviewed")
        }
    }
}

/// Lag of what the namespace was granted, and of nothing else.
fn values(query: &MetricQuery, ctx: &Context) -> Result<Answer, (Refusal, String)> {
    let settings = ctx.settings.current();
    let granted = ctx.board.granted(&query.namespace, settings.lag_monitors.values());
    let oldest = oldest_known(jiff::Timestamp::now().as_millisecond(), ctx.sweep_every);
    documents::values(query, &ctx.board.topic_lags(granted, oldest))
}

fn response(answer: Answer, last: bool) -> Response<Body> {
    let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = match answer.body {
        serde_json::Value::String(text) => text,
        document => document.to_string(),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
