//! Seeded buildings: what their sensors and meters read, as a function of what was before.
//!
//! A [`Plan`] is made from a description (YAML). [`Plan::begin`] gives a [`Memory`], [`Plan::step`]
//! moves it on by one reporting interval and gives the readings at the new moment. Everything is a
//! function of seed, plan and memory: the same run in one go, in pieces, or at any speed gives the
//! same bytes on any machine. So there is no clock here, no I/O, no randomness but hashes of the
//! seed (`noise`), and no transcendental function but `libm`'s.
//!
//! `docs/building.md` names equations and sources.

mod ahu;
mod balance;
mod boiler;
mod calendar;
mod carry;
mod catalog;
mod chiller;
mod description;
mod design;
mod entity;
mod equipment;
mod fault;
mod loads;
mod memory;
mod minute;
mod mistake;
mod mode;
mod noise;
mod plan;
mod psychrometrics;
mod read;
mod sensor;
pub mod simulate;
mod sizing;
mod step;
mod summary;
mod sun;
mod vav;
mod weather;
mod zone;

pub use balance::Balance;
pub use entity::{Entity, Point};
pub use memory::Memory;
pub use mistake::Mistake;
pub use plan::Plan;
pub use summary::Summary;

/// The description of the default building, the text of `config/building.yaml`: a medium office of
/// three floors, about 280 points every 15 minutes.
pub const DEFAULT: &str = include_str!("../../config/building.yaml");
