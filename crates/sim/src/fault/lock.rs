use crate::world::World;

impl World<'_> {
    /// A migration holds a table: whatever uses it waits.
    pub(super) fn start_lock(&mut self, fault: u32, store: u32, table: u32) {
        self.lock_table(store, table, fault);
    }

    pub(super) fn end_lock(&mut self, fault: u32, store: u32, table: u32) {
        self.unlock_table(store, table, fault);
    }
}
