use crate::world::World;

impl World<'_> {
    /// A topic takes nothing and gives nothing.
    pub(super) fn start_broker_down(&mut self, topic: u32) {
        self.topic_down(topic, true);
    }

    pub(super) fn end_broker_down(&mut self, topic: u32) {
        self.topic_down(topic, false);
    }
}
