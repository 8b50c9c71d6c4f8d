//! This node, as it shows itself in handshakes: its key, its credential, the mesh's secrets, its process, its clock; and
//! what it asks of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::EndpointConfig;
use super::super::frames::{InitPayload, ResponsePayload};
use super::super::generation::GenerationKeys;
use super::super::mac::{self, Mac};
use super::super::timestamp::TimestampClock;
use crate::authority::checker::Checker;
use crate::authority::credential::{Credential, SHOWN_BYTES};
use crate::authority::pass::Grant;
use crate::key::PublicKey;
use crate::kit::wall_clock::WallClock;
use crate::mesh::Generation;
use crate::net::secure::noise::StaticKey;
use crate::net::secure::version::{Incompatible, Versions};

pub(in super::super) struct LocalIdentity {
    pub(in super::super) key: StaticKey,
    /// The handshake's prologue: it names the mesh.
    pub(in super::super) prologue: Vec<u8>,
    /// The mesh's secrets, current first.
    generations: Vec<Arc<GenerationKeys>>,
    pub(in super::super) boot: u64,
    /// What we speak above the handshake.
    pub(in super::super) versions: Versions,
    /// The peers met lately that speak none of these.
    pub(in super::super) incompatible: Incompatible,
    features: u16,
    clock: TimestampClock,
    /// What we show; nothing before we have a pass.
    shown: Option<Box<[u8; SHOWN_BYTES]>>,
    /// The grant in it.
    grant: Option<Grant>,
    pub(in super::super) checker: Checker,
}

impl LocalIdentity {
    pub(super) fn new(config: &EndpointConfig, now: Instant, unix_now: Duration) -> LocalIdentity {
        let wall = WallClock::new(now, unix_now);
        let key = StaticKey::new(config.backend, &config.key).expect("32 bytes are an X25519 key");
        let mut identity = LocalIdentity {
            key,
            prologue: config.mesh.prologue(),
            generations: Vec::new(),
            boot: config.boot,
            versions: config.versions,
            incompatible: Incompatible::default(),
            features: config.features,
            clock: TimestampClock::new(wall),
            shown: None,
            grant: None,
            checker: Checker::new(config.mesh, wall),
        };
        if let Some(credential) = &config.credential {
            identity.set_credential(credential);
        }
        identity.set_generations(config.generations.clone());
        identity
    }

    /// Our own public key.
    pub(in super::super) fn local(&self) -> &PublicKey {
        self.key.public()
    }

    pub(super) fn set_generations(&mut self, generations: Vec<Generation>) {
        let keys = |generation| Arc::new(GenerationKeys::new(generation, self.key.public()));
        self.generations = generations.into_iter().map(keys).collect();
    }

    /// The mesh's secrets, current first.
    pub(in super::super) fn generations(&self) -> &[Arc<GenerationKeys>] {
        &self.generations
    }

    /// The generation under which `mac1` is the MAC of `signed`, if there is one.
    pub(super) fn generation_of(&self, signed: &[u8], mac1: &Mac) -> Option<Arc<GenerationKeys>> {
        let keys = self.generations.iter().find(|keys| mac::equal(&mac::mac(&keys.own_mac1, signed), mac1));
        keys.cloned()
    }

    /// Whether we have something to show.
    pub(super) fn has_credential(&self) -> bool {
        self.shown.is_some()
    }

    /// Sets what we show from now on.
    pub(super) fn set_credential(&mut self, credential: &Credential) {
        self.shown = Some(Box::new(credential.show()));
        self.grant = Some(credential.pass().grant().clone());
    }

    /// Whether what we show was revoked.
    pub(super) fn is_revoked(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| self.checker.revocations().revokes(grant))
    }

    /// The payload of the next init; `None` while we have nothing to show.
    pub(in super::super) fn init_payload(&mut self, now: Instant, challenge: Mac) -> Option<InitPayload> {
        let shown = **self.shown.as_ref()?;
        let timestamp = self.clock.next(now);
        let (boot, versions, features) = (self.boot, self.versions.to_bytes(), self.features);
        Some(InitPayload { timestamp, boot, versions, features, challenge, shown })
    }

    /// The payload of a response; `None` while we have nothing to show.
    pub(in super::super) fn response_payload(&self) -> Option<ResponsePayload> {
        let shown = **self.shown.as_ref()?;
        let (boot, versions, features) = (self.boot, self.versions.to_bytes(), self.features);
        Some(ResponsePayload { boot, versions, features, shown })
    }
}
