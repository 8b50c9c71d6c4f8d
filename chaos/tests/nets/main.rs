//! Networks behind boxes, seen from a scenario: who reaches whom, under which address, and what a change of the map
//! does to what is under way.
#![cfg(madsim)]

mod boxes;
mod capture;
mod cuts;
mod homes;
mod kernels;
mod links;
mod moves;
mod streams;
mod support;
