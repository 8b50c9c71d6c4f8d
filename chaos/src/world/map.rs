//! The map of a world as text: networks, the boxes in front of them, and the addresses in each network.
//!
//! A network is a line, followed by its indented content: first its hosts, then the networks behind boxes in it,
//! each in the order of creation. A host with interfaces in several networks appears in each of them.

use super::hosts::Hosts;
use crate::ids::{INTERNET, NetId};
use crate::kernel::host::HostState;
use crate::kernel::nics::Nic;
use crate::kernel::process::Process;
use crate::wire::nets::Nets;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Spaces of indentation for the content of a network.
const INDENT: usize = 2;

/// The map that a reader has requested of a run.
#[derive(Debug, Default)]
pub(crate) struct KeptMap {
    is_requested: bool,
    text: Option<String>,
}

impl KeptMap {
    /// A reader requests the map, or not.
    pub(crate) fn request(&mut self, is_requested: bool) {
        self.is_requested = is_requested;
    }

    /// Whether a map is requested and not kept yet.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_requested && self.text.is_none()
    }

    pub(crate) fn keep(&mut self, text: String) {
        self.text = Some(text);
    }

    pub(crate) fn take(&mut self) -> Option<String> {
        self.text.take()
    }
}

/// The map of a world now.
pub(crate) fn draw(hosts: &Hosts, nets: &Nets) -> String {
    let mut out = String::new();
    draw_net(hosts, nets, INTERNET, 0, &mut out);
    for host in hosts.iter().filter(|host| host.nics.iter().next().is_none()) {
        line(&mut out, 0, &format!("nowhere: {}{}", host.name, state(host)));
    }
    out
}

fn draw_net(hosts: &Hosts, nets: &Nets, id: NetId, depth: usize, out: &mut String) {
    let net = nets.get(id);
    let behind = net.gateway.as_ref().map(|gateway| {
        let at = if gateway.outer.is_empty() { "" } else { " at " };
        let off = if gateway.is_on() { "" } else { " (off)" };
        format!(", behind {}{off}{at}{}", gateway.describe(), list(&gateway.outer))
    });
    line(out, depth, &(net.name.clone() + &behind.unwrap_or_default()));
    for host in hosts.iter() {
        let here: Vec<String> = host.nics.iter().filter(|nic| nic.net == id).map(interface).collect();
        if !here.is_empty() {
            line(
                out,
                depth + 1,
                &format!("{}{}{}: {}", host.name, state(host), troubles(host), here.join(", ")),
            );
        }
    }
    for (other_id, other) in nets.iter() {
        if other.gateway.as_ref().is_some_and(|gateway| gateway.outside == id) {
            draw_net(hosts, nets, other_id, depth + 1, out);
        }
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:indent$}{text}", "", indent = depth * INDENT).expect("a String takes everything");
}

fn list(addrs: &[IpAddr]) -> String {
    addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

fn interface(nic: &Nic) -> String {
    format!("{}{} {}", nic.name, if nic.up { "" } else { " down" }, list(&nic.addrs))
}

/// What its disk, its processor and its lookups suffer from, if anything.
fn troubles(host: &HostState) -> String {
    let disk = host.disk.troubles.describe();
    let cpu = host.cpu.fault.map(|times| format!("cpu {times} times as slow"));
    let all: Vec<String> = disk.into_iter().chain(cpu).chain(host.names.describe()).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

/// The state that keeps a host from taking part, if there is one.
fn state(host: &HostState) -> &'static str {
    match (host, &host.process) {
        (HostState { powered: false, .. }, _) => " (no power)",
        (HostState { suspended: true, .. }, _) => " (suspended)",
        (_, Process { alive: false, .. }) => " (no process)",
        (_, Process { paused: true, .. }) => " (paused)",
        (_, Process { pinned: true, .. }) => " (pinned)",
        _ => "",
    }
}
