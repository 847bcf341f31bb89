macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in the system's list of its kind.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            fn from(index: usize) -> Self {
                $name(u32::try_from(index).expect("a system has fewer than 2^32 components"))
            }
        }
    )*};
}

ids! {
    /// A client, by position in [`System::clients`](super::System::clients).
    ClientId;
    /// A service or gateway, by position in [`System::services`](super::System::services).
    ServiceId;
    /// A store, by position in [`System::stores`](super::System::stores).
    StoreId;
    /// A topic, by position in [`System::topics`](super::System::topics).
    TopicId;
    /// A consumer, by position in [`System::consumers`](super::System::consumers).
    ConsumerId;
    /// A lease, by position in [`System::leases`](super::System::leases).
    LeaseId;
    /// An edge, by position in [`System::edges`](super::System::edges).
    EdgeId;
    /// A zone, by position in [`System::zones`](super::System::zones).
    ZoneId;
    /// A space of keys, by position in [`System::keyspaces`](super::System::keyspaces).
    KeyspaceId;
}

/// An endpoint of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// The service that answers.
    pub service: ServiceId,
    /// Position in that service's [`endpoints`](super::Service::endpoints).
    pub index: u32,
}

/// Any named component of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Component {
    Client(ClientId),
    Service(ServiceId),
    Store(StoreId),
    Topic(TopicId),
    Consumer(ConsumerId),
    Lease(LeaseId),
}
