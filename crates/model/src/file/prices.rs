//! `prices:` — in US$.

use super::filled::Filled;
use super::quantity::{PRICE_GB_HOUR, PRICE_GB_MONTH, PRICE_HOUR, PRICE_MILLION, PRICE_MONTH};
use super::table::{Kind, Object, value};
use crate::system::Prices;

const AWS: &str = "AWS list price, us-east-1";

pub(crate) static PRICES: Object = Object {
    name: "prices",
    doc: "Prices in US$. A month has 730 hours, a GB 10^9 bytes.",
    groups: &[&[
        value(
            "vcpu",
            Kind::Scalar(&PRICE_HOUR),
            "$0.0405/h",
            "AWS Fargate, us-east-1",
            "A virtual processor of a service, gateway or consumer.",
        ),
        value(
            "memory",
            Kind::Scalar(&PRICE_GB_HOUR),
            "$0.00445/GB-h",
            "AWS Fargate, us-east-1",
            "Memory of a service, gateway or consumer.",
        ),
        value("postgres", Kind::Scalar(&PRICE_HOUR), "$0.145/h", AWS, "Two processors of a PostgreSQL or quorum node."),
        value(
            "postgres_storage",
            Kind::Scalar(&PRICE_GB_MONTH),
            "$0.115/GB-month",
            AWS,
            "Storage of a PostgreSQL or quorum node.",
        ),
        value("redis_memory", Kind::Scalar(&PRICE_GB_MONTH), "$11.68/GB-month", AWS, "Memory of a Redis."),
        value("messages", Kind::Scalar(&PRICE_MILLION), "$0.40/million", AWS, "Messages of a topic."),
        value(
            "load_balancer",
            Kind::Scalar(&PRICE_MONTH),
            "$16.43/month",
            AWS,
            "A load balancer in front of a gateway.",
        ),
    ]],
};

pub(crate) fn prices(filled: &Filled) -> Prices {
    Prices {
        vcpu_hour: filled.get("vcpu").number(),
        memory_gb_hour: filled.get("memory").number(),
        postgres_2vcpu_hour: filled.get("postgres").number(),
        postgres_gb_month: filled.get("postgres_storage").number(),
        redis_gb_month: filled.get("redis_memory").number(),
        queue_million: filled.get("messages").number(),
        load_balancer_month: filled.get("load_balancer").number(),
    }
}
