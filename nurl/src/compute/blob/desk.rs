//! The door to a node's large files: handlers and tasks have them fetched and offered by it.
//!
//! The node runs the other end of the channel, beside its work plane.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::fetch::FetchError;
use super::folder::{Folder, FolderError, Held, Source, Spool};
use super::manifest::Manifest;
use super::message::FileId;
use crate::key::PublicKey;
use crate::rt::sync::{mpsc, oneshot};
use crate::rt::task::Planes;

/// Orders that wait for their turn; then who gives one waits.
pub const ORDERS: usize = 1_024;

/// Why a file isn't there.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It doesn't come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It has no place here.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// This node has no folder for large files.
    #[error("this node has no folder for large files")]
    NoFolder,
    /// The node has ended.
    #[error("the node has ended")]
    Closed,
}

/// An order to fetch a file.
#[derive(Debug)]
pub struct FetchOrder {
    /// The file.
    pub file: FileId,
    /// Who has it.
    pub from: PublicKey,
    /// What it is made of.
    pub manifest: Manifest,
    /// Is told the bytes that are there, now and then.
    pub progress: mpsc::Sender<u64>,
    /// Gets the file. To drop the other end ends the fetch.
    pub reply: oneshot::Sender<Result<Held, DeskError>>,
}

/// What the node's end is told to do.
#[derive(Debug)]
pub enum Order {
    /// Fetches a file.
    Fetch(Box<FetchOrder>),
    /// Offers a file, to these peers at first.
    Offer {
        /// The file.
        file: FileId,
        /// What it is made of.
        manifest: Manifest,
        /// Where it is.
        source: Arc<Source>,
        /// When the offer ends.
        until: Instant,
        /// Who may read it.
        readers: Vec<PublicKey>,
    },
    /// Lets a peer read an offered file.
    Grant {
        /// The file.
        file: FileId,
        /// The peer.
        peer: PublicKey,
    },
    /// Ends an offer.
    Withdraw {
        /// The file.
        file: FileId,
    },
}

/// See the module.
#[derive(Clone)]
pub struct Desk {
    orders: mpsc::Sender<Order>,
    folder: Option<Folder>,
    planes: Planes,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What a file that this process offers is made of, and where it is.
pub type Offered = (Arc<Source>, Manifest);

impl Desk {
    /// A desk, and its orders.
    pub fn new(folder: Option<Folder>, planes: Planes) -> (Desk, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(ORDERS);
        (Desk { orders, folder, planes }, taken)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// [`DeskError::Closed`].
    pub async fn order(&self, order: Order) -> Result<(), DeskError> {
        self.orders.send(order).await.map_err(|_| DeskError::Closed)
    }

    /// Fetches a file; `progress` is told the bytes that are there. To drop the future ends the fetch.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn fetch(
        &self,
        file: FileId,
        from: PublicKey,
        manifest: Manifest,
        progress: mpsc::Sender<u64>,
    ) -> Result<Held, DeskError> {
        if self.folder.is_none() {
            return Err(DeskError::NoFolder);
        }
        let (reply, answer) = oneshot::channel();
        self.order(Order::Fetch(Box::new(FetchOrder { file, from, manifest, progress, reply }))).await?;
        answer.await.unwrap_or(Err(DeskError::Closed))
    }

    /// Begins the file of a result.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn spool(&self) -> Result<Spool, DeskError> {
        let folder = self.folder.clone().ok_or(DeskError::NoFolder)?;
        let spool = self.planes.blocking(move || folder.spool()).await;
        Ok(spool.map_err(|_| DeskError::Closed)??)
    }

    /// Reads what a file that somebody else owns is made of.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn read(&self, path: PathBuf) -> Result<Offered, DeskError> {
        let read = self.planes.blocking(move || Source::of(&path)).await.map_err(|_| DeskError::Closed)?;
        let (source, manifest) = read.map_err(FolderError::from)?;
        Ok((Arc::new(source), manifest))
    }

    /// Reads what a file of the folder is made of.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn read_held(&self, held: Held) -> Result<Offered, DeskError> {
        let read =
            self.planes.blocking(move || Source::of_held(held)).await.map_err(|_| DeskError::Closed)?;
        let (source, manifest) = read.map_err(FolderError::from)?;
        Ok((Arc::new(source), manifest))
    }
}
