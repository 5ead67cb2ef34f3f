//! What the host lends a socket device: its path, for as long as the session is there.

use std::sync::Arc;

use virtio::devices::vsock::{HostSocket, Vsock, VsockCounters, VsockOptions};

use crate::config::{Problem, VsockConfig};
use crate::listener::{ListenError, Listener};

/// The socket of a vsock device, and what passed through it in all incarnations of the machine.
#[derive(Debug)]
pub struct LentVsock {
    host: Arc<HostSocket>,
    counters: Arc<VsockCounters>,
    /// Takes the path away.
    _listener: Listener,
}

impl LentVsock {
    /// Listens on the path of `config`.
    ///
    /// # Errors
    ///
    /// [`ListenError`] when that is not possible; nothing is left then.
    pub fn open(config: &VsockConfig) -> Result<Self, ListenError> {
        let listener = Listener::bind(&config.socket)?;
        let host = listener
            .socket()
            .try_clone()
            .and_then(|socket| HostSocket::new(socket, config.socket.clone()))
            .map_err(|source| ListenError::Host {
                path: config.socket.clone(),
                source,
            })?;
        Ok(Self {
            host: Arc::new(host),
            counters: Arc::default(),
            _listener: listener,
        })
    }

    /// The device.
    ///
    /// # Errors
    ///
    /// [`Problem`] when something of its configuration does not fit.
    pub fn device(&self, config: &VsockConfig) -> Result<Vsock, Problem> {
        let options = VsockOptions {
            connections: config.connections,
            ..VsockOptions::new("vsock", config.cid)
        };
        Vsock::new(Arc::clone(&self.host), options, self.counters())
            .map_err(|error| Problem::new("vsock", error))
    }

    /// What passed.
    pub fn counters(&self) -> Arc<VsockCounters> {
        Arc::clone(&self.counters)
    }
}
