mod handing;
mod pure;
#[cfg(not(feature = "sim"))]
mod sockets;
