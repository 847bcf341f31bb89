use crate::world::World;

impl World<'_> {
    /// A cache loses all its keys; writes that it had not passed on are lost.
    pub(super) fn start_flush(&mut self, store: u32) {
        self.flush_store(store);
    }
}
