// SPDX-License-Identifier: GPL-2.0

//! Connections that do not stay open for ever, and the signals that end a server.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    signal::unix::{signal, Signal, SignalKind},
    time::{sleep, Instant, Sleep},
};

/// How long connections may take to end after the first signal.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long a request may take to come, after the connection or the last answer. Not as long as a
/// usual interval between two requests, at which a connection would end as the next one comes.
const REQUEST: Duration = Duration::from_secs(45);

/// SIGTERM and SIGINT.
pub struct Stop(Signal, Signal);

impl Stop {
    pub fn new() -> io::Result<Self> {
        let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()];
        Ok(Self(signal(terminate)?, signal(interrupt)?))
    }

    /// Returns at the next one.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.0.recv() => (),
            _ = self.1.recv() => (),
        }
    }
}

/// A listener whose connections end if no request comes.
pub struct Limited(pub TcpListener);

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        let limit = Box::pin(sleep(REQUEST));
        (Connection { stream, limit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection that is to get its next request in time. What is written begins the time anew, and
/// what is read does not, so that a request in small pieces has no more time than another.
pub struct Connection {
    stream: TcpStream,
    limit: Pin<Box<Sleep>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() && self.limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.limit.as_mut().reset(Instant::now() + REQUEST);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
