pub(super) fn origin() -> std::time::Instant { std::time::Instant::now() }
