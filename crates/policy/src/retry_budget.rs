//! Retry budget: how much extra load retries and hedges may make, taken together.
//!
//! Attempts limits bound one call; a budget bounds all of them, so that a target that fails every
//! call sees 1.2 times its load and not three times.

use std::time::Duration;

use crate::window::{Buckets, Tally};
use crate::{Counts, InvalidConfig, Mode, Reason, Rejected, Time, nanos};

/// What is deposited and what is paid out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Config {
    /// How the budget fills.
    pub rule: Rule,
    /// Whether to act.
    pub mode: Mode,
}

/// How a budget fills and empties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Over any `window`, retries are at most `ratio` of the calls started in the window before,
    /// and `min_per_second` on top, so that a quiet client may retry at all. The default: 20%, 10
    /// a second, 10 s (Finagle's:
    /// <https://finagle.github.io/blog/2016/02/08/retry-budgets>).
    Share {
        /// Retries per call, 0.2 for 20%.
        ratio: f64,
        /// Retries per second that need no calls.
        min_per_second: f64,
        /// How long a deposit counts.
        window: Duration,
    },
    /// A bucket of tokens that successes fill and retries empty: retries stop while most calls
    /// fail, whatever the rate.
    Tokens {
        /// The most tokens, and how many there are at the start.
        capacity: f64,
        /// Tokens that a retry takes.
        retry_cost: f64,
        /// Tokens that a success gives back.
        success_return: f64,
        /// Whether a success that needed retries gives back what its last retry took, in place of
        /// `success_return`.
        refund: bool,
    },
}

impl Default for Rule {
    fn default() -> Self {
        Rule::Share { ratio: 0.2, min_per_second: 10.0, window: Duration::from_secs(10) }
    }
}

impl Rule {
    /// The quota of the AWS SDKs' standard mode: 500 tokens, 5 a retry, 1 back for a success at
    /// the first attempt, 5 for a later one
    /// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>).
    pub const AWS_STANDARD: Rule = Rule::Tokens { capacity: 500.0, retry_cost: 5.0, success_return: 1.0, refund: true };

    /// Brooker's adaptive retry: a success gives back part of the token that a retry takes, a tenth
    /// in his example (<https://brooker.co.za/blog/2022/02/28/retries.html>).
    ///
    /// While a share `f` of the attempts fails, calls settle at `1 / (1 - success_return x (1 - f))`
    /// attempts each: at `f` 0.5 and 0.2 back, 1.11, where three plain retries make 1.88.
    pub const fn adaptive(capacity: f64, success_return: f64) -> Rule {
        Rule::Tokens { capacity, retry_cost: 1.0, success_return, refund: false }
    }
}

/// Buckets to a window.
const BUCKETS: usize = 10;

/// Decides whether one more retry or hedge is affordable.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    config: Config,
    state: State,
    counts: Counts,
}

#[derive(Clone, Debug)]
enum State {
    Share {
        ratio: f64,
        /// What `min_per_second` makes in a window.
        reserve: f64,
        /// One bucket more than the window holds: payouts must not be forgotten early.
        buckets: Buckets<Flow, { BUCKETS + 1 }>,
    },
    /// In millionths of a token, so that ten tenths make one.
    Tokens { tokens: u64, capacity: u64, retry_cost: u64, success_return: u64, late_success_return: u64 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    deposits: u32,
    payouts: u32,
}

impl Tally for Flow {
    #[inline]
    fn add(&mut self, other: Flow) {
        self.deposits = self.deposits.saturating_add(other.deposits);
        self.payouts = self.payouts.saturating_add(other.payouts);
    }

    #[inline]
    fn subtract(&mut self, other: Flow) {
        self.deposits = self.deposits.saturating_sub(other.deposits);
        self.payouts = self.payouts.saturating_sub(other.payouts);
    }
}

impl RetryBudget {
    /// Refuses negative, infinite and not-a-number amounts, and an empty window.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        validate(&config)?;
        let state = State::new(config.rule, now);
        Ok(RetryBudget { config, state, counts: Counts::default() })
    }

    /// A call starts (not an attempt: retries must not earn retries).
    #[inline]
    pub fn deposit(&mut self, now: Time) {
        if let State::Share { buckets, .. } = &mut self.state {
            buckets.advance(now);
            buckets.record(Flow { deposits: 1, payouts: 0 });
        }
    }

    /// A call has succeeded; `retried` says that it took more than one attempt.
    #[inline]
    pub fn succeed(&mut self, retried: bool) {
        if let State::Tokens { tokens, capacity, success_return, late_success_return, .. } = &mut self.state {
            let back = if retried { *late_success_return } else { *success_return };
            *tokens = tokens.saturating_add(back).min(*capacity);
        }
    }

    /// Pays for one retry or hedge, or says when there may be more to pay with.
    #[inline]
    pub fn withdraw(&mut self, now: Time) -> Result<(), Rejected> {
        if self.balance(now) >= 1.0 {
            match &mut self.state {
                State::Share { buckets, .. } => buckets.record(Flow { deposits: 0, payouts: 1 }),
                State::Tokens { tokens, retry_cost, .. } => *tokens -= *retry_cost,
            }
            self.counts.admitted += 1;
            return Ok(());
        }
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(());
        }
        self.counts.rejected += 1;
        Err(match &self.state {
            State::Share { buckets, .. } => Rejected::until(Reason::BudgetExhausted, buckets.end()),
            State::Tokens { .. } => Rejected::new(Reason::BudgetExhausted),
        })
    }

    /// How many retries it would pay for at `now`; below 1 it pays for none.
    #[inline]
    pub fn balance(&mut self, now: Time) -> f64 {
        match &mut self.state {
            State::Share { ratio, reserve, buckets } => {
                buckets.advance(now);
                let total = buckets.total();
                // Deposits over at most the window, payouts over at least the window: then no
                // window of that length, wherever it starts, sees more than its share.
                let deposits = total.deposits.saturating_sub(buckets.oldest().deposits);
                *ratio * f64::from(deposits) + *reserve - f64::from(total.payouts)
            }
            State::Tokens { tokens, retry_cost, .. } => *tokens as f64 / *retry_cost as f64,
        }
    }

    /// Replaces the configuration. Deposits, payouts and tokens stay, unless the rule becomes one
    /// of the other kind: then the budget starts anew.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        validate(&config)?;
        let mut state = State::new(config.rule, now);
        match (&mut state, &mut self.state) {
            (State::Share { buckets: new, .. }, State::Share { buckets: old, .. }) => {
                old.set_width(new.width_ns(), now);
                std::mem::swap(new, old);
            }
            (State::Tokens { tokens: new, capacity, .. }, State::Tokens { tokens: old, .. }) => {
                *new = (*old).min(*capacity);
            }
            _ => {}
        }
        self.state = state;
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Withdrawals paid and refused.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl State {
    fn new(rule: Rule, now: Time) -> State {
        match rule {
            Rule::Share { ratio, min_per_second, window } => State::Share {
                ratio,
                reserve: min_per_second * window.as_secs_f64(),
                buckets: Buckets::new(nanos(window).div_ceil(BUCKETS as u64), now),
            },
            Rule::Tokens { capacity, retry_cost, success_return, refund } => {
                let millionths = |x: f64| (x * 1e6).round() as u64;
                State::Tokens {
                    tokens: millionths(capacity),
                    capacity: millionths(capacity),
                    retry_cost: millionths(retry_cost),
                    success_return: millionths(success_return),
                    late_success_return: millionths(if refund { retry_cost } else { success_return }),
                }
            }
        }
    }
}

fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let refuse = |field, expected| Err(InvalidConfig { field, expected });
    let amount = |x: f64| x.is_finite() && x >= 0.0;
    match config.rule {
        Rule::Share { ratio, .. } if !amount(ratio) => refuse("ratio", "zero or more"),
        Rule::Share { min_per_second, .. } if !amount(min_per_second) => refuse("min_per_second", "zero or more"),
        Rule::Share { window, .. } if window.is_zero() => refuse("window", "a duration above zero"),
        Rule::Tokens { capacity, .. } if !amount(capacity) => refuse("capacity", "zero or more"),
        Rule::Tokens { retry_cost, .. } if !(amount(retry_cost) && retry_cost >= 1e-6) => {
            refuse("retry_cost", "at least 0.000001")
        }
        Rule::Tokens { success_return, .. } if !amount(success_return) => refuse("success_return", "zero or more"),
        _ => Ok(()),
    }
}
