/// A black hole: nothing arrives, and nobody is told. Bytes, ends and resets are held until the toxic is removed,
/// and then arrive, as retransmissions do; whoever wants to connect gets no answer, since either direction's loss
/// keeps the handshake from completing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Partition;
