//! Models of what surrounds a mesh, beyond what the world itself knows.

pub mod relay;
