//! Lookups for OS threads.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::batch::{LookupKey, LookupValue};
use super::client::{LookupClient, LookupError};

/// A [`LookupClient`] that threads can block on. Clones share the client and one thread that drives its connections;
/// the thread ends when the last clone is gone.
#[derive(Clone, Debug)]
pub struct BlockingLookup {
    client: Arc<LookupClient>,
    handle: Handle,
    _stop: Arc<oneshot::Sender<()>>,
}

impl BlockingLookup {
    /// Starts the thread.
    pub fn start(client: LookupClient) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("redis-lookup".to_owned()).spawn(move || {
            // Ends with an error when the senders are gone, which is the signal.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { client: Arc::new(client), handle, _stop: Arc::new(stop) })
    }

    /// As [`LookupClient::get_batch`], blocking the calling thread. Must not be called from asynchronous code.
    pub fn get_batch(&self, keys: &[LookupKey]) -> Vec<Result<LookupValue, LookupError>> {
        self.handle.block_on(self.client.get_batch(keys))
    }
}
