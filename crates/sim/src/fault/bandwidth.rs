use super::link::Disturbance;

/// Answers share so many bytes a second, one after the other.
pub(super) fn limited(rate: f64) -> Disturbance {
    Disturbance::Bandwidth { rate, free_at: 0 }
}
