mod authors;
mod bounds;
mod handoff;
mod kinds;
mod mesh;
mod reads;
mod sync;
mod writes;
