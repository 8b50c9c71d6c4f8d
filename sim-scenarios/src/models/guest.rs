//! A client of a hub without a node: it registers, tries again as every client does, and notes what the hub says.
//!
//! The code is nurl's own [`HubClient`]. A [`Mesh`] has the authority's key, so a scenario decides by which invitation and
//! pass each guest comes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chaos::property::Violation;
use chaos::world::{Host, World};
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::invitation::{Invitation, InvitationId};
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::{Grant, MAX_LIFE};
use nurl::internals::authority::slip::{self, Slip};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::mesh::{Hub, MeshId};
use nurl::internals::net::reach::hub_client::{
    Answer, Ask, DownReason, HubClient, HubClientConfig, HubEvent, Joining, LoneClient,
};
use nurl::internals::net::secure::version::Versions;
use nurl::rt::sync::mpsc;
use nurl::rt::{self, time};
use nurl::{PublicKey, SecretKey};
use rand_core::Rng as _;

use super::sim_hub::{HUB_PORT, SimHub};
use crate::cluster::soon;
use crate::lock::lock;

/// Orders that may wait for a guest.
const ORDERS: usize = 1 << 12;

/// A mesh whose passes a scenario signs itself.
pub struct Mesh {
    /// Its authority.
    pub authority: Arc<AuthorityKey>,
}

impl Mesh {
    /// A new mesh.
    pub fn generate(rng: &mut rt::Rng) -> Mesh {
        Mesh { authority: Arc::new(AuthorityKey::generate(rng)) }
    }

    /// Its id.
    pub fn id(&self) -> MeshId {
        self.authority.mesh()
    }

    /// A pass of 90 days that was issued so long ago, by this invitation or by hand.
    pub fn pass(
        &self,
        key: &PublicKey,
        level: Level,
        invitation: Option<InvitationId>,
        ago: Duration,
    ) -> Credential {
        let issued = seconds(time::unix_now() - ago);
        let grant = Grant { invitation, ..Grant::new(*key, level, issued, issued + MAX_LIFE) };
        Credential::new(grant.sign(&self.authority).expect("the fields are within bounds"))
    }

    /// A slip of this pass, for a throwaway key.
    pub fn slip(&self, holder: &SecretKey, pass: &Credential, key: PublicKey) -> Credential {
        let not_after = seconds(time::unix_now()) + slip::MAX_LIFE;
        let slip = Slip { key, level: Level::Submit, not_after };
        Credential::with_slip(pass.pass().clone(), slip.sign(holder, &self.id()))
    }

    /// How one with this pass joins.
    pub fn with(&self, credential: Credential) -> Joining {
        Joining { credential: Some(credential), ..self.with_nothing() }
    }

    /// How one with an invitation joins.
    pub fn by(&self, invitation: Invitation) -> Joining {
        Joining { invitation: Some(invitation), ..self.with_nothing() }
    }

    fn with_nothing(&self) -> Joining {
        Joining {
            mesh: self.id(),
            credential: None,
            invitation: None,
            name: String::new(),
            wall: WallClock::new(time::now(), time::unix_now()),
            versions: Versions::SPOKEN,
        }
    }
}

/// Seconds since 1970 as passes have them.
pub fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).expect("the world ends before 2106")
}

type Order = Box<dyn FnOnce(&mut HubClient, Instant) + Send>;

/// What a guest answers as an issuer; nothing: it stays silent.
pub type Policy = Box<dyn FnMut(PublicKey, Ask) -> Option<Answer> + Send>;

/// Gives a guest orders.
#[derive(Clone)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Lets the guest do something.
    pub async fn give(&self, order: impl FnOnce(&mut HubClient, Instant) + Send + 'static) {
        // One that is gone does nothing.
        let _ = self.0.send(Box::new(order)).await;
    }
}

/// A client of one hub. Once it and all of its [`Orders`] are dropped, it says goodbye.
pub struct Guest {
    /// Its name in messages.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// The machine that it runs on, perhaps with others.
    pub host: Host,
    world: World,
    orders: Orders,
    noted: Arc<Mutex<Vec<(Duration, HubEvent)>>>,
}

impl Guest {
    /// Starts one on a machine that [`machine`] made. It answers no request for a pass.
    pub fn start(
        (world, host): (World, Host),
        name: &str,
        hub: &SimHub,
        key: &SecretKey,
        joining: Joining,
    ) -> Guest {
        Guest::start_issuer((world, host), name, hub, (key, joining), Box::new(|_, _| None))
    }

    /// The same for one that answers as an issuer.
    pub fn start_issuer(
        (world, host): (World, Host),
        name: &str,
        hub: &SimHub,
        (key, joining): (&SecretKey, Joining),
        mut policy: Policy,
    ) -> Guest {
        let (orders, mut given) = mpsc::channel::<Order>(ORDERS);
        let noted = Arc::<Mutex<Vec<_>>>::default();
        let addr = format!("{}:{HUB_PORT}", hub.host.name());
        let hub = Hub { key: hub.key, addr };
        let (log, key, public) = (noted.clone(), key.clone(), key.public());
        host.run(async move {
            rt::known_as(&public.short());
            let boot = rt::rng("guest").next_u64();
            let mut client = LoneClient::spawn(HubClientConfig { hub, key, boot, joining });
            loop {
                rt::select! {
                    order = given.recv() => match order {
                        Some(order) => client.give(order).await,
                        None => return,
                    },
                    event = client.next_event() => {
                        let Some(event) = event else { return };
                        if let HubEvent::Asked { number, key, ask } = &event
                            && let Some(answer) = policy(*key, ask.clone())
                        {
                            let number = *number;
                            client.give(move |hub, _| hub.answer(number, &answer)).await;
                        }
                        lock(&log).push((world.elapsed(), event));
                    }
                }
            }
        });
        Guest { name: name.to_owned(), key: public, host, world, orders: Orders(orders), noted }
    }

    /// What gives it orders while it goes on.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Lets it do something.
    pub async fn give(&self, order: impl FnOnce(&mut HubClient, Instant) + Send + 'static) {
        self.orders.give(order).await;
    }

    /// What the hub said since a time, in order.
    pub fn heard(&self, since: Duration) -> Vec<(Duration, HubEvent)> {
        lock(&self.noted).iter().filter(|(at, _)| *at >= since).cloned().collect()
    }

    /// The number of such events.
    pub fn count(&self, fits: impl Fn(&HubEvent) -> bool) -> usize {
        lock(&self.noted).iter().filter(|(_, event)| fits(event)).count()
    }

    /// Why it lost its registration or got none, each time.
    pub fn downs(&self) -> Vec<DownReason> {
        let down = |(_, event): &(Duration, HubEvent)| match event {
            HubEvent::Down { reason, .. } => Some(*reason),
            _ => None,
        };
        lock(&self.noted).iter().filter_map(down).collect()
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    /// If it isn't within this time.
    pub async fn is_in(&self, property: &'static str, within: Duration) -> Result<(), Violation> {
        let is_so = || self.is_up().then_some(()).ok_or_else(|| self.is_out());
        soon(self.world, property, within, is_so).await
    }

    /// Waits until it was told this.
    ///
    /// # Errors
    /// If it wasn't within this time.
    pub async fn is_told(
        &self,
        property: &'static str,
        within: Duration,
        reason: DownReason,
    ) -> Result<(), Violation> {
        let is_so = || self.downs().contains(&reason).then_some(()).ok_or_else(|| self.is_out());
        soon(self.world, property, within, is_so).await
    }

    fn is_out(&self) -> String {
        format!("{} isn't registered, or not told so: {:?}", self.name, self.downs().last())
    }

    /// Whether it is registered, as far as it knows.
    pub fn is_up(&self) -> bool {
        let state = |(_, event): &(Duration, HubEvent)| match event {
            HubEvent::Up { .. } => Some(true),
            HubEvent::Down { .. } => Some(false),
            _ => None,
        };
        lock(&self.noted).iter().rev().find_map(state) == Some(true)
    }
}

/// None of these was ever told anything but REGISTERED.
///
/// # Errors
/// The first one that was.
pub fn none_went<'a>(property: &str, guests: impl IntoIterator<Item = &'a Guest>) -> Result<(), Violation> {
    match guests.into_iter().find(|guest| !guest.downs().is_empty()) {
        Some(guest) => Err(Violation::safety(property, format!("{}: {:?}", guest.name, guest.downs()))),
        None => Ok(()),
    }
}

/// A machine on the internet for guests.
pub fn machine(world: World, name: &str) -> Host {
    // No two hosts have one number.
    let number = world.hosts().len();
    let host = world.host(name).addr(&format!("198.51.{}.{}", 100 + number / 250, number % 250 + 1));
    host.spawn(std::future::pending::<()>)
}
