mod authors;
mod bounds;
mod handoff;
mod mesh;
mod reads;
mod sync;
mod types;
mod writes;
