//! What a building is made of, as a directory of entities shows it.

use domain::{device_type::Kind, tags::Tags};

/// A site, a floor, a zone, a piece of equipment, or a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Unique in the building and the same as long as the description names the thing the same:
    /// `ahu-1.discharge-air-temp`.
    pub key: String,
    /// As people call it.
    pub name: String,
    /// Project Haystack tags. References hold keys: `siteRef` is `Ref("site")`. A point's `kind`
    /// and `unit` aren't among them; [`Point`] has both.
    pub tags: Tags,
    /// What it is part of, by index; always before it.
    pub parent: Option<usize>,
}

/// What has readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its entity, by index.
    pub entity: usize,
    /// What its readings are.
    pub kind: Kind,
    /// Unit of a number, as Project Haystack writes it (`°C`, `kWh`, `L/s`).
    pub unit: Option<String>,
}
