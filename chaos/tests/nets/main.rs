//! Networks behind boxes, seen from a scenario: which hosts reach each other, under which address, and the effects
//! of a changed map on packets in flight.
#![cfg(madsim)]

mod boxes;
mod capture;
mod cuts;
mod homes;
mod kernels;
mod links;
mod moves;
mod names;
mod streams;
mod support;
mod ways;
